package files_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

// create makes a file with content.
func create(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Skip(err) // Windows asks for a privilege.
	}
}

// content returns that of a file, and "" if there is none.
func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}

// names lists a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, entry := range entries {
		list = append(list, entry.Name())
	}
	return strings.Join(list, " ")
}

// wantProved checks that Prove accepts a path, leaves no trace, and that Write then
// replaces what is there by something shorter and by something longer.
func wantProved(t *testing.T, path string) {
	t.Helper()
	before, around := content(t, path), names(t, filepath.Dir(path))
	if err := files.Prove(path, 4096); err != nil {
		t.Fatal(err)
	}
	if got := content(t, path); got != before || names(t, filepath.Dir(path)) != around {
		t.Errorf("the proof left %q, was %q; files %s, were %s", got, before, names(t, filepath.Dir(path)), around)
	}
	for _, data := range []string{"new", strings.Repeat("longer", 600), "newest"} {
		if err := files.Write(path, []byte(data)); err != nil || content(t, path) != data {
			t.Errorf("write %d bytes: %v, then %d bytes", len(data), err, len(content(t, path)))
		}
	}
}

// wantRefused checks that Prove and Write refuse a path, for a reason and without
// changing anything.
func wantRefused(t *testing.T, path, reason string) {
	t.Helper()
	around := names(t, filepath.Dir(path))
	for name, err := range map[string]error{
		"prove": files.Prove(path, 4096),
		"write": files.Write(path, bytes.Repeat([]byte("x"), 4096)),
	} {
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, want %q", name, err, reason)
		}
	}
	if got := names(t, filepath.Dir(path)); got != around {
		t.Errorf("left %s, were %s", got, around)
	}
}

func TestProve_AcceptsWhatCanBeWritten(t *testing.T) {
	for name, prepare := range map[string]func(dir string) string{
		"no file":      func(dir string) string { return filepath.Join(dir, "config.json") },
		"no directory": func(dir string) string { return filepath.Join(dir, "new", "config.json") },
		"a file": func(dir string) string {
			create(t, filepath.Join(dir, "config.json"), `{"token":"old"}`)
			return filepath.Join(dir, "config.json")
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := prepare(t.TempDir())
			mode := os.FileMode(0o600)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			wantProved(t, path)
			if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != mode {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}

func TestProve_RefusesWhatIsNoFile(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(t *testing.T, path string)
		reason  string
	}{
		"a directory":           {mkdir, "is a directory"},
		"a link to a directory": {func(t *testing.T, path string) { symlink(t, t.TempDir(), path) }, "is a directory"},
		"a link to itself":      {func(t *testing.T, path string) { symlink(t, "config.json", path) }, "too many symbolic links"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.json")
			test.prepare(t, path)
			wantRefused(t, path, test.reason)
		})
	}
	blocked := filepath.Join(t.TempDir(), "blocked")
	create(t, blocked, "a file where a directory should be")
	if err := files.Prove(filepath.Join(blocked, "config.json"), 4096); err == nil {
		t.Error("proved below a file")
	}
}

func TestWrite_KeepsLinks(t *testing.T) {
	for name, link := range map[string]func(t *testing.T, dir string) (path, target string){
		"absolute": func(t *testing.T, dir string) (string, string) {
			create(t, filepath.Join(dir, "real"), "old")
			symlink(t, filepath.Join(dir, "real"), filepath.Join(dir, "link"))
			return "link", "real"
		},
		"relative": func(t *testing.T, dir string) (string, string) {
			mkdir(t, filepath.Join(dir, "deep"))
			create(t, filepath.Join(dir, "real"), "old")
			symlink(t, filepath.Join("..", "real"), filepath.Join(dir, "deep", "link"))
			return filepath.Join("deep", "link"), "real"
		},
		"dangling": func(t *testing.T, dir string) (string, string) {
			symlink(t, filepath.Join("missing", "real"), filepath.Join(dir, "link"))
			return "link", filepath.Join("missing", "real")
		},
		"a chain": func(t *testing.T, dir string) (string, string) {
			create(t, filepath.Join(dir, "real"), "old")
			symlink(t, "real", filepath.Join(dir, "second"))
			symlink(t, "second", filepath.Join(dir, "first"))
			return "first", "real"
		},
		"through a linked directory": func(t *testing.T, dir string) (string, string) {
			mkdir(t, filepath.Join(dir, "a"))
			mkdir(t, filepath.Join(dir, "a", "b"))
			symlink(t, filepath.Join("a", "b"), filepath.Join(dir, "linked"))
			create(t, filepath.Join(dir, "a", "real"), "old")
			symlink(t, filepath.Join("..", "real"), filepath.Join(dir, "a", "b", "link"))
			return filepath.Join("linked", "link"), filepath.Join("a", "real")
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, target := link(t, dir)
			path, target = filepath.Join(dir, path), filepath.Join(dir, target)
			before := content(t, target)
			if err := files.Prove(path, 4096); err != nil || content(t, target) != before {
				t.Fatalf("prove: %v, then %q", err, content(t, target))
			}
			wantProved(t, path)
			if got := content(t, target); got != "newest" {
				t.Errorf("the link's target has %q", got)
			}
			if err := files.Remove(path); err != nil || content(t, target) != "" {
				t.Errorf("remove: %v, then %q", err, content(t, target))
			}
			if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
				t.Errorf("the link is %v, %v", info.Mode(), err)
			}
		})
	}
}
