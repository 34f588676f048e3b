package files_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

func TestReadSecret_RefusesAFileThatItsOwnerCanCloseToOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has access lists in place of modes")
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o755} {
		path := filepath.Join(t.TempDir(), "it's a secret")
		create(t, path, "secret")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		want := `chmod 600 '` + strings.ReplaceAll(path, "'", `'\''`) + "'"
		if _, err := files.ReadSecret(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mode %#o: %v, want %q", mode, err, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %#o became %v, %v", mode, info.Mode(), err)
		}
	}
}

func TestReadSecret_ReadsWhatIsPrivate(t *testing.T) {
	for _, mode := range []os.FileMode{0o600, 0o400, 0o700, 0o711} {
		path := filepath.Join(t.TempDir(), "secret")
		create(t, path, "\uFEFFsecret")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if data, err := files.ReadSecret(path); err != nil || string(data) != "secret" || files.Exposure(path) != nil {
			t.Errorf("mode %#o: %q, %v, %v", mode, data, err, files.Exposure(path))
		}
	}
	path := filepath.Join(t.TempDir(), "empty")
	create(t, path, "")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if data, err := files.ReadSecret(path); err != nil || len(data) > 0 {
		t.Errorf("an empty file: %q, %v", data, err)
	}
}
