package store

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func snapshot(revision int64) types.ClientSnapshot {
	return types.ClientSnapshot{Type: types.TypeClientSnapshot, Revision: revision, Allocations: []types.ClientAllocation{{ID: 1}}}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestState_LeavesOutWhatItCannotRead(t *testing.T) {
	for name, write := range map[string]func(path string) error{
		"damaged":       func(path string) error { return os.WriteFile(path, []byte(`{"allocations":[{"id"`), 0o600) },
		"empty":         func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"others' eyes":  func(path string) error { return os.WriteFile(path, []byte(`{}`), 0o644) },
		"a directory":   func(path string) error { return os.Mkdir(path, 0o700) },
		"another shape": func(path string) error { return os.WriteFile(path, []byte(`[]`), 0o600) },
	} {
		if name == "others' eyes" && runtime.GOOS == "windows" {
			continue
		}
		path := filepath.Join(t.TempDir(), "state.json")
		if err := write(path); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		f := NewState[types.ClientSnapshot](path, slog.New(slog.NewTextHandler(&log, nil)))
		if state := f.Load(); state != nil {
			t.Errorf("%s: loaded %+v", name, state)
		}
		if !strings.Contains(log.String(), path) {
			t.Errorf("%s: the log does not name the file: %s", name, log.String())
		}
	}
}

func TestState_WritesTheLatestAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	f := NewState[types.ClientSnapshot](filepath.Join(dir, "state.json"), slog.New(slog.DiscardHandler))
	stop := f.Start()
	for revision := int64(1); revision <= 100; revision++ {
		m := snapshot(revision)
		f.Save(&m)
	}
	stop()
	if state := f.Load(); state == nil || state.Revision != 100 {
		t.Errorf("kept %+v", state)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left %v (%v)", files, err)
	}
	stop = f.Start()
	f.Save(nil)
	stop()
	if state := f.Load(); state != nil || exists(t, f.path) {
		t.Errorf("kept %+v", state)
	}
}

func TestState_IsWrittenOnceSaveNowReturns(t *testing.T) {
	f := NewState[types.ClientSnapshot](filepath.Join(t.TempDir(), "device.state.json"), slog.New(slog.DiscardHandler))
	began := time.Now()
	f.SaveNow(&types.ClientSnapshot{}, time.Millisecond) // Nobody writes it yet.
	if time.Since(began) > time.Minute || exists(t, f.path) {
		t.Errorf("after %v the file is there: %v", time.Since(began), exists(t, f.path))
	}
	stop := f.Start()
	defer stop()
	for revision := range int64(50) {
		state := snapshot(revision + 1)
		f.Save(&types.ClientSnapshot{})
		f.SaveNow(&state, time.Minute)
		if kept := f.Load(); kept == nil || kept.Revision != revision+1 {
			t.Fatalf("kept %+v, want revision %d", kept, revision+1)
		}
	}
}

func TestState_ThatCannotBeWrittenIsSaidOnceEachTimeItBegins(t *testing.T) {
	for name, block := range map[string]func(path string) error{
		"no directory": func(path string) error { return os.WriteFile(filepath.Dir(path), nil, 0o600) },
		"a directory":  func(path string) error { return os.MkdirAll(path, 0o700) },
		"a link to itself": func(path string) error {
			return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Symlink(filepath.Base(path), path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dir", "state.json")
			var log bytes.Buffer
			f := NewState[types.ClientSnapshot](path, slog.New(slog.NewTextHandler(&log, nil)))
			for outages := 1; outages <= 2; outages++ {
				if err := block(path); err != nil {
					t.Skip(err)
				}
				for revision := range int64(10) { // Each attempt fails: at a save, and at the end.
					m := snapshot(revision)
					f.Save(&m)
					f.Start()()
				}
				if n := strings.Count(log.String(), "not kept"); n != outages {
					t.Fatalf("%d lines after %d outages: %s", n, outages, log.String())
				}
				if err := os.RemoveAll(filepath.Dir(path)); err != nil {
					t.Fatal(err)
				}
				f.Start()()
				if n := strings.Count(log.String(), "kept again"); n != outages || f.Load() == nil {
					t.Fatalf("%d recoveries of %d: %s", n, outages, log.String())
				}
				if err := os.RemoveAll(filepath.Dir(path)); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestState_ThatCannotBeWrittenIsSaidAndTriedAgain(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "blocked")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil { // A file where a directory should be.
		t.Fatal(err)
	}
	var log bytes.Buffer
	f := NewState[types.ClientSnapshot](filepath.Join(blocked, "state.json"), slog.New(slog.NewTextHandler(&log, nil)))
	m := snapshot(1)
	stop := f.Start()
	f.Save(&m)
	stop()
	if !strings.Contains(log.String(), "not kept") {
		t.Errorf("logged %q", log.String())
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	f.Start()() // The end of a process tries once more.
	if f.Load() == nil {
		t.Error("not written again")
	}
}
