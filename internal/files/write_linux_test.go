package files_test

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

// mount mounts something until the test ends, and skips the test where it may not.
func mount(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(target, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// smallDisk returns a directory on a file system of 8 KiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	mount(t, "none", dir, "tmpfs", 0, "size=8k")
	return dir
}

// readOnly makes the directory dir, with what is in it, read-only.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	mount(t, dir, dir, "", syscall.MS_BIND, "")
	if err := syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("remount: %v", err)
	}
}

func TestProve_MindsTheDisk(t *testing.T) {
	t.Run("full", func(t *testing.T) {
		dir := smallDisk(t)
		create(t, filepath.Join(dir, "config.json"), "old")
		create(t, filepath.Join(dir, "other"), string(make([]byte, 4096)))
		wantRefused(t, filepath.Join(dir, "config.json"), "no space left")
		wantRefused(t, filepath.Join(dir, "new.json"), "no space left")
		if got := content(t, filepath.Join(dir, "config.json")); got != "old" {
			t.Errorf("%q is left", got)
		}
	})
	t.Run("full, with the file mounted", func(t *testing.T) {
		dir, path := smallDisk(t), filepath.Join(t.TempDir(), "config.json")
		create(t, filepath.Join(dir, "config.json"), "old")
		create(t, filepath.Join(dir, "other"), string(make([]byte, 4096)))
		create(t, path, "")
		mount(t, filepath.Join(dir, "config.json"), path, "", syscall.MS_BIND, "")
		for name, err := range map[string]error{
			"prove": files.Prove(path, 8192),
			"write": files.Write(path, bytes.Repeat([]byte("x"), 8192)),
		} {
			if err == nil || content(t, path) != "old" {
				t.Errorf("%s: %v, %q is left", name, err, content(t, path))
			}
		}
		wantProved(t, path) // What fits where the old content is.
	})
	t.Run("read-only", func(t *testing.T) {
		dir := t.TempDir()
		create(t, filepath.Join(dir, "config.json"), "old")
		readOnly(t, dir)
		wantRefused(t, filepath.Join(dir, "config.json"), "read-only file system")
		wantRefused(t, filepath.Join(dir, "new.json"), "read-only file system")
		if err := files.Prove(filepath.Join(dir, "new", "config.json"), 4096); err == nil {
			t.Error("proved in a directory that cannot be made")
		}
	})
	t.Run("almost full", func(t *testing.T) {
		dir := smallDisk(t)
		wantProved(t, filepath.Join(dir, "config.json"))
	})
}

func TestWrite_WritesAFileThatIsMountedByItself(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"in a writable directory":  func(*testing.T, string) {},
		"in a read-only directory": readOnly,
	} {
		for before, old := range map[string]string{"empty": "", "written": `{"token":"old"}`} {
			t.Run(before+" "+name, func(t *testing.T) {
				source, dir := filepath.Join(t.TempDir(), "source"), t.TempDir()
				path := filepath.Join(dir, "config.json")
				create(t, source, old)
				create(t, path, "")
				if err := os.Chmod(source, 0o644); err != nil { // As touch makes it.
					t.Fatal(err)
				}
				prepare(t, dir)
				mount(t, source, path, "", syscall.MS_BIND, "")
				wantProved(t, path)
				if got := content(t, source); got != "newest" {
					t.Errorf("the mounted file has %q", got)
				}
				if info, err := os.Stat(source); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("mode %v, %v", info.Mode(), err)
				}
			})
		}
	}
}

func TestWrite_KeepsTheOwnerOfAFileThatRootReplaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for name, test := range map[string]struct {
		uid, gid int
		mode     os.FileMode
		want     os.FileMode
	}{
		"a user's":                {1234, 1234, 0o600, 0o600},
		"a service's, by group":   {0, 1234, 0o640, 0o640},
		"a user's, for everyone":  {1234, 1234, 0o644, 0o600},
		"a user's, for its group": {1234, 1234, 0o640, 0o600},
		"root's, for everyone":    {0, 0, 0o644, 0o600},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.json")
			create(t, path, "old")
			if err := os.Chmod(path, test.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(path, test.uid, test.gid); err != nil {
				t.Fatal(err)
			}
			if err := files.Write(path, []byte("new")); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			stat := info.Sys().(*syscall.Stat_t)
			if int(stat.Uid) != test.uid || int(stat.Gid) != test.gid || info.Mode().Perm() != test.want {
				t.Errorf("owner %d, group %d, mode %v", stat.Uid, stat.Gid, info.Mode())
			}
			if data, err := files.ReadSecret(path); err != nil || string(data) != "new" {
				t.Errorf("root reads %q, %v", data, err)
			}
		})
	}
}
