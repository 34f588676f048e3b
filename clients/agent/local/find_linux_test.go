package local_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/clients/agent/local"
)

// onThreadOf calls do on a thread that belongs to another user, and ends with it.
func onThreadOf(t *testing.T, uid uintptr, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // Not unlocked: the thread ends with the goroutine.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
			t.Error(errno)
			return
		}
		do()
	}()
	<-done
}

func TestFind_SaysThatAnAgentIsAnothersUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	base := reachableDir(t)
	p := local.Place{Dir: filepath.Join(base, "run"), Device: uuid.New(), Owner: "61001"}
	l, err := local.Listen(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for uid, want := range map[uintptr]struct {
		found int
		err   error
	}{61001: {1, nil}, 61002: {0, local.ErrNotAllowed}} {
		onThreadOf(t, uid, func() {
			found, err := local.Find(t.Context(), p.Dir)
			if len(found) != want.found || !errors.Is(err, want.err) {
				t.Errorf("user %d finds %d agents: %v", uid, len(found), err)
			}
			_, err = dialSocket(p)
			if uid == 61002 && !errors.Is(err, syscall.EACCES) {
				t.Errorf("another user connects: %v", err)
			}
		})
	}
}
