package store

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestState_IsKeptAndEndedInAFileThatIsMountedByItself(t *testing.T) {
	source, path := filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "state.json")
	for _, file := range []string{source, path} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mount(source, path, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	var log bytes.Buffer
	f := NewState[types.ClientSnapshot](path, slog.New(slog.NewTextHandler(&log, nil)))
	m := snapshot(7)
	for _, state := range []*types.ClientSnapshot{&m, nil} {
		f.Save(state)
		f.Start()()
		if kept := f.Load(); (kept == nil) != (state == nil) {
			t.Errorf("kept %+v, want %+v", kept, state)
		}
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", log.String())
	}
}
