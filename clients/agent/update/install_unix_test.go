//go:build unix

package update_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent/update"
)

// installed returns the path of a program of version 1.0.0, alone in its directory.
func installed(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "eclitunnel")
	if err := os.WriteFile(path, []byte(program("1.0.0")), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantFiles fails unless the directory of path has just these files, with these contents.
func wantFiles(t *testing.T, path string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(filepath.Dir(path), e.Name()))
		if expected, ok := want[e.Name()]; !ok || err != nil || string(content) != expected {
			t.Errorf("%s: %q (%v), want %q", e.Name(), content, err, expected)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("%d files, want %d", len(entries), len(want))
	}
}

// fetch finds and fetches the newest of a release.
func fetch(t *testing.T, r release, key update.Key, path string) (string, error) {
	t.Helper()
	found, err := update.Find(t.Context(), r.download, update.Query{Key: key, Unsigned: true})
	if err != nil {
		t.Fatal(err)
	}
	return found.Fetch(t.Context(), r.download, path)
}

func TestInstall_KeepsTheProgramBeforeAndSwapGoesBack(t *testing.T) {
	key, private := newKey(t)
	path := installed(t)
	if err := update.Swap(path); !errors.Is(err, update.ErrNoOld) {
		t.Fatalf("with nothing to go back to: %v", err)
	}
	before := program("1.0.0")
	for _, version := range []string{"1.1.0", "1.2.0"} {
		fetched, err := fetch(t, of(t, version).sum(private), key, path)
		if err != nil {
			t.Fatal(err)
		}
		if err := update.Install(fetched, path); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, path, map[string]string{"eclitunnel": program(version), "eclitunnel.old": before})
		before = program(version)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the mode is %v (%v)", info.Mode(), err)
	}
	for _, now := range []string{"1.1.0", "1.2.0"} {
		other := map[string]string{"1.1.0": "1.2.0", "1.2.0": "1.1.0"}[now]
		if err := update.Swap(path); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, path, map[string]string{"eclitunnel": program(now), "eclitunnel.old": program(other)})
	}
}

func TestFetch_LeavesNothingOfWhatIsNotRight(t *testing.T) {
	good := of(t, "1.1.0")[archiveName("1.1.0")]
	for name, c := range map[string]struct {
		archive []byte
		late    []byte // Served in place of what was summed.
		words   string
	}{
		"another archive":     {good, of(t, "1.2.0")[archiveName("1.2.0")], "checksum is wrong"},
		"the archive cut off": {good, good[:len(good)/2], "checksum is wrong"},
		"cut off when packed": {good[:len(good)-9], nil, "unpack"},
		"no archive":          {[]byte("<html>"), nil, "unpack"},
		"no program":          {tarball(t, entry{"LICENSE", "text"}), nil, "there is no eclitunnel"},
		"in a directory":      {tarball(t, entry{"bin/eclitunnel", program("1.1.0")}), nil, "there is no eclitunnel"},
		"two programs":        {tarball(t, entry{"eclitunnel", program("1.1.0")}, entry{"eclitunnel", "x"}), nil, "more than one"},
		"a name that leads out": {
			tarball(t, entry{"eclitunnel", program("1.1.0")}, entry{"../../etc/cron.d/x", "x"}), nil, `unsafe name "../../etc/cron.d/x"`,
		},
		"an absolute name":    {tarball(t, entry{"/etc/passwd", "x"}, entry{"eclitunnel", program("1.1.0")}), nil, "unsafe name"},
		"another version":     {tarball(t, entry{"eclitunnel", program("1.0.9")}), nil, `says that it is version "1.0.9"`},
		"of another system":   {tarball(t, entry{"eclitunnel", "MZ\x00\x01"}), nil, "does not run"},
		"a program that ends": {tarball(t, entry{"eclitunnel", "#!/bin/sh\nexit 1\n"}), nil, "does not run"},
		"a silent program":    {tarball(t, entry{"eclitunnel", "#!/bin/sh\n"}), nil, "does not say its version"},
		"a program that minds settings": {
			tarball(t, entry{"eclitunnel", "#!/bin/sh\necho \"{\\\"version\\\": \\\"$ECLITUNNEL_TOKEN\\\"}\"\n"}), nil, `version ""`,
		},
	} {
		t.Setenv("ECLITUNNEL_TOKEN", "1.1.0")
		path := installed(t)
		r := release{archiveName("1.1.0"): c.archive}.sum(nil)
		if c.late != nil {
			r[archiveName("1.1.0")] = c.late
		}
		fetched, err := fetch(t, r, update.Key{}, path)
		if err == nil || !strings.Contains(err.Error(), c.words) || fetched != "" {
			t.Errorf("%s: %q, %v; want %q", name, fetched, err, c.words)
		}
		wantFiles(t, path, map[string]string{"eclitunnel": program("1.0.0")})
	}
}

func TestFetch_LeavesNothingOfABrokenDownload(t *testing.T) {
	path := installed(t)
	r := of(t, "1.1.0").sum(nil)
	found, err := update.Find(t.Context(), r.download, update.Query{Unsigned: true})
	if err != nil {
		t.Fatal(err)
	}
	lost := errors.New("connection lost")
	broken := func(_ context.Context, name string, _ int64, w io.Writer) error {
		_, _ = w.Write(r[name][:10])
		return lost
	}
	if _, err := found.Fetch(t.Context(), broken, path); !errors.Is(err, lost) {
		t.Errorf("%v", err)
	}
	wantFiles(t, path, map[string]string{"eclitunnel": program("1.0.0")})
}

func TestReplaceable_NeedsADirectoryThatCanBeWritten(t *testing.T) {
	if err := update.Replaceable(installed(t)); err != nil {
		t.Error(err)
	}
	if err := update.Replaceable("/proc/self/eclitunnel"); err == nil { // For root too.
		t.Error("no error below /proc")
	}
}
