package agent

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/uuid"
)

func TestClaimInstance_OnAFullDisk(t *testing.T) {
	dir, device := t.TempDir(), uuid.New()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := ClaimInstance(t.Context(), []string{dir}, device)
	if err != nil {
		t.Fatalf("the lock itself holds: %v", err)
	}
	var other *InstanceError
	if _, err := ClaimInstance(t.Context(), []string{dir}, device); !errors.As(err, &other) {
		t.Errorf("a second claim: %v", err)
	}
	if err := first.Release(); err != nil {
		t.Error(err)
	}
}
