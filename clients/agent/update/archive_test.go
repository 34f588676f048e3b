package update

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"testing"
)

// counting counts what is written, and keeps nothing.
type counting int64

func (c *counting) Write(p []byte) (int, error) {
	*c += counting(len(p))
	return len(p), nil
}

// testLimit bounds what tests unpack, in bytes.
const testLimit = 1 << 20

func unpackBytes(t *testing.T, name string, data []byte) (counting, error) {
	t.Helper()
	var n counting
	err := unpack(name, io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))), "eclitunnel", testLimit, &n)
	return n, err
}

// sparse returns an archive whose program has n zeros.
func sparse(t *testing.T, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	compressed, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	files := tar.NewWriter(compressed)
	err := files.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "eclitunnel", Size: n})
	for block := make([]byte, 1<<20); n > 0 && err == nil; n -= int64(len(block)) {
		_, err = files.Write(block)
	}
	if err != nil || files.Close() != nil || compressed.Close() != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpack_BoundsWhatItWrites(t *testing.T) {
	n, err := unpackBytes(t, "a.tar.gz", sparse(t, 2*testLimit))
	if err == nil || n > testLimit {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestUnpack_ReadsZips(t *testing.T) {
	for name, c := range map[string]struct {
		names []string
		good  bool
	}{
		"good":       {[]string{"LICENSE", "eclitunnel"}, true},
		"leads out":  {[]string{"eclitunnel", "../x"}, false},
		"more":       {[]string{"eclitunnel", "eclitunnel"}, false},
		"no program": {[]string{"LICENSE"}, false},
	} {
		var b bytes.Buffer
		files := zip.NewWriter(&b)
		for _, name := range c.names {
			w, err := files.Create(name)
			if err == nil {
				_, err = w.Write([]byte("content"))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := files.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := unpackBytes(t, "a.zip", b.Bytes()); (err == nil) != c.good || c.good && n != 7 {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		if _, err := unpackBytes(t, "a.zip", b.Bytes()[:b.Len()-10]); err == nil {
			t.Errorf("%s, cut off: no error", name)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	var b bytes.Buffer
	compressed := gzip.NewWriter(&b)
	files := tar.NewWriter(compressed)
	_ = files.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "eclitunnel", Size: 3})
	_, _ = files.Write([]byte("abc"))
	if files.Close() != nil || compressed.Close() != nil {
		f.Fatal("cannot be closed")
	}
	f.Add(b.Bytes(), false)
	b.Reset()
	zipped := zip.NewWriter(&b)
	if w, err := zipped.Create("eclitunnel"); err == nil {
		_, _ = w.Write([]byte("abc"))
	}
	_ = zipped.Close()
	f.Add(b.Bytes(), true)
	f.Fuzz(func(t *testing.T, data []byte, isZip bool) {
		name := map[bool]string{true: "a.zip", false: "a.tar.gz"}[isZip]
		if n, err := unpackBytes(t, name, data); n > testLimit || err == nil && n == 0 && len(data) == 0 {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}
