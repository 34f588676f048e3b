package agent

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestConfig_SavedPrivatelyAndReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "eclitunnel", "config.json")
	want := Config{PanelURL: "https://panel.test", DeviceID: uuid.New(), Name: "home", Token: "secret", Allow: []string{"game.lan"}}
	if err := CheckConfigPath(path); err != nil {
		t.Fatal(err)
	}
	for range 2 { // The second time it is replaced.
		if err := want.Save(path); err != nil {
			t.Fatal(err)
		}
	}
	got, err := LoadConfig(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v", got, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind %v, %v", entries, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for p, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, %v", p, info.Mode(), err)
		}
	}
}

func TestLoadConfig_RefusesFileOthersCanRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has access lists in place of modes")
	}
	path := filepath.Join(t.TempDir(), "config.json")
	if err := (Config{Token: "secret"}).Save(path); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %#o: %v", mode, err)
		}
	}
}

func TestLoadConfig_AbsentOrDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	if _, err := LoadConfig(path); !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("absent: %v", err)
	}
	if err := os.WriteFile(path, []byte(`{"panelUrl": 7`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(path); err == nil || errors.Is(err, ErrNotEnrolled) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged: %v", err)
	}
}
