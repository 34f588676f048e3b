package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLock_OneHolderWithItsNote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "device.lock")
	if _, _, err := Holder(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	first, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a long note", "short", strings.Repeat("x", noteSize)} {
		if err := first.SetNote([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
			t.Errorf("a second lock: %v", err)
		}
		if note, held, err := Holder(path); !held || string(note) != text || err != nil {
			t.Errorf("held %v with %q (%v), want %q", held, note, err, text)
		}
	}
	if first.SetNote(make([]byte, noteSize+1)) == nil {
		t.Error("a note that is too long is taken")
	}
	if err := first.Unlock(); err != nil {
		t.Fatal(err)
	}
	if note, held, err := Holder(path); held || note != nil || err != nil {
		t.Errorf("held %v with %q (%v) after its end", held, note, err)
	}
	second, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Unlock(); err != nil {
		t.Error(err)
	}
}

func TestLock_FollowsNoLinkToAnotherFile(t *testing.T) {
	dir := t.TempDir()
	other, path := filepath.Join(dir, "other"), filepath.Join(dir, "device.lock")
	if err := os.WriteFile(other, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, path); err != nil || noFollow == 0 {
		t.Skip("no links, or none that are refused", err)
	}
	if _, err := TryLock(path); err == nil {
		t.Error("locked")
	}
	if data, err := os.ReadFile(other); err != nil || string(data) != "content" {
		t.Errorf("%q (%v)", data, err)
	}
}
