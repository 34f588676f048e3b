//go:build !windows

package local_test

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/local"
)

// deviceDir is the name of a device's directory.
func deviceDir(p local.Place) string { return hex.EncodeToString(p.Device[:8]) }

func dialSocket(p local.Place) (net.Conn, error) {
	return net.Dial("unix", filepath.Join(p.Dir, deviceDir(p), "agent.sock"))
}

func modes(t *testing.T, p local.Place) (dir, socket fs.FileInfo) {
	t.Helper()
	path := filepath.Join(p.Dir, deviceDir(p))
	dir, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if socket, err = os.Lstat(filepath.Join(path, "agent.sock")); err != nil {
		t.Fatal(err)
	}
	return dir, socket
}

func TestListen_IsForItsUserAlone(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	p := local.Place{Dir: filepath.Join(t.TempDir(), "sockets"), Device: uuid.New()}
	if err := os.MkdirAll(filepath.Join(p.Dir, deviceDir(p)), 0o755); err != nil {
		t.Fatal(err)
	}
	if l, err := local.Listen(t.Context(), p); err == nil { // Umask 0: others could write there.
		_ = l.Close()
	}
	if err := os.Chmod(p.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := local.Listen(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if dir, socket := modes(t, p); dir.Mode().Perm() != 0o700 || socket.Mode().Perm() != 0o600 {
		t.Errorf("the directory has mode %v, the socket %v", dir.Mode(), socket.Mode())
	}
	if _, err := local.Listen(t.Context(), p); !errors.Is(err, local.ErrInUse) {
		t.Errorf("a second agent: %v", err)
	}
}

func TestListen_ReplacesTheSocketOfAnAgentThatWasKilled(t *testing.T) {
	p := local.Place{Dir: t.TempDir(), Device: uuid.New()}
	l, err := local.Listen(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(p.Dir, deviceDir(p), "agent.sock")
	if err := os.Rename(path, path+".killed"); err != nil { // Close does not find it.
		t.Fatal(err)
	}
	_ = l.Close()
	if err := os.Rename(path+".killed", path); err != nil {
		t.Fatal(err)
	}
	if found, err := local.Find(t.Context(), p.Dir); len(found) != 0 || err != nil {
		t.Errorf("found %d: %v", len(found), err)
	}
	if l, err = local.Listen(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if left, err := os.ReadDir(p.Dir); len(left) != 0 || err != nil {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestListen_FollowsNoLinkAndTrustsNoOpenDirectory(t *testing.T) {
	p := local.Place{Dir: t.TempDir(), Device: uuid.New()}
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, filepath.Join(p.Dir, deviceDir(p))); err != nil {
		t.Fatal(err)
	}
	if l, err := local.Listen(t.Context(), p); err == nil {
		_ = l.Close()
		t.Error("it listens in a directory that a link leads to")
	}
	p = local.Place{Dir: t.TempDir(), Device: uuid.New()}
	if err := os.Chmod(p.Dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if l, err := local.Listen(t.Context(), p); err == nil || !strings.Contains(err.Error(), "others can write") {
		_ = l.Close()
		t.Errorf("a directory that all can write to: %v", err)
	}
}

// reachableDir makes a directory that other users can enter, unlike those of the test.
func reachableDir(t *testing.T) string {
	t.Helper()
	base, err := os.MkdirTemp("/tmp", "sockets")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	return base
}

// asUser runs a shell command as another user.
func asUser(t *testing.T, uid uint32, command string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestListen_OfRootLetsInWhoEnrolledAndNobodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a socket away")
	}
	base := reachableDir(t)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	const owner, other = 61001, 61002
	p := local.Place{Dir: filepath.Join(base, "run"), Device: uuid.New(), Owner: "61001"}
	for range 2 { // The second one finds the directory of its owner.
		l, err := local.Listen(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		socket := filepath.Join(p.Dir, deviceDir(p), "agent.sock")
		for uid, want := range map[uint32]bool{owner: true, other: false} {
			out, err := asUser(t, uid, "test -r "+socket+" && test -w "+socket+" && echo yes")
			if got := strings.TrimSpace(out) == "yes"; got != want {
				t.Errorf("user %d may use it: %v, want %v (%s, %v)", uid, got, want, out, err)
			}
		}
		if out, err := asUser(t, owner, "ln -sf /etc/passwd "+p.Dir+"/x"); err == nil {
			t.Errorf("the owner writes beside it: %s", out)
		}
		_ = l.Close()
	}
	for _, wrong := range []string{"alice", "-1"} {
		p.Owner = wrong
		if l, err := local.Listen(t.Context(), p); err == nil {
			_ = l.Close()
			t.Errorf("the owner %q is taken", wrong)
		}
	}
}
