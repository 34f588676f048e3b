package update_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/clients/agent/update"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// release is what a panel hands out: files by name.
type release map[string][]byte

// download is an update.Source.
func (r release) download(_ context.Context, name string, limit int64, w io.Writer) error {
	data, ok := r[name]
	if !ok {
		return fmt.Errorf("there is no %s", name)
	}
	if int64(len(data)) > limit {
		return fmt.Errorf("%s is too large", name)
	}
	_, err := w.Write(data)
	return err
}

// sum writes SHA256SUMS and signs it.
func (r release) sum(key ed25519.PrivateKey) release {
	var lines []string
	for name, data := range r {
		if !strings.HasPrefix(name, "SHA256SUMS") {
			sum := sha256.Sum256(data)
			lines = append(lines, hex.EncodeToString(sum[:])+"  "+name+"\n")
		}
	}
	slices.Sort(lines)
	r["SHA256SUMS"] = []byte(strings.Join(lines, ""))
	if key != nil {
		r["SHA256SUMS.sig"] = ed25519.Sign(key, r["SHA256SUMS"])
	}
	return r
}

// program is one that says it is of a version.
func program(version string) string {
	return "#!/bin/sh\necho '{\"version\": \"" + version + "\"}'\n"
}

func archiveName(version string) string {
	return "eclitunnel_" + version + "_" + update.Platform() + ".tar.gz"
}

// of returns a release of one version for this platform.
func of(t *testing.T, version string) release {
	return release{archiveName(version): tarball(t, entry{"eclitunnel", program(version)})}
}

type entry struct{ name, content string }

func tarball(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	compressed := gzip.NewWriter(&b)
	files := tar.NewWriter(compressed)
	for _, e := range entries {
		err := files.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: 0o755, Size: int64(len(e.content))})
		if err == nil {
			_, err = io.WriteString(files, e.content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if files.Close() != nil || compressed.Close() != nil {
		t.Fatal("cannot be closed")
	}
	return b.Bytes()
}

func newKey(t *testing.T) (update.Key, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := update.ParseKey(base64.StdEncoding.EncodeToString(public))
	if err != nil {
		t.Fatal(err)
	}
	return key, private
}
