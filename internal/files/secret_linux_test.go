package files_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

const (
	user      = 65532 // Runs the program; its group has the same number.
	volume    = 2000  // Another group of that user, such as Kubernetes' fsGroup.
	elsewhere = 3000  // Not a group of that user.
)

// publicDir returns a directory that every user can enter.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "files")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// publicProgram returns a copy of this program that every user can run.
func publicProgram(t *testing.T) string {
	t.Helper()
	source, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	program := filepath.Join(publicDir(t), "test")
	copied, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(copied, source)
	if closeErr := copied.Close(); err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
	return program
}

// asUser reads a secret as user and returns the error and the exposure.
func asUser(t *testing.T, program, path string) (refused, exposed string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = []string{readAsUser + "=" + path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user, Groups: []uint32{volume}}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	refused, exposed, _ = strings.Cut(strings.TrimSuffix(string(out), "\n"), "\n")
	return refused, exposed
}

func TestReadSecret_MindsWhoCanReallyReadAndWhatWouldHelp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const none = "<nil>"
	program := publicProgram(t)
	const immutableFlag = 0x10 // FS_IMMUTABLE_FL of linux/fs.h.
	immutable := func(t *testing.T, path string) { setFlags(t, path, immutableFlag) }
	for name, test := range map[string]struct {
		uid, gid         int
		mode             os.FileMode
		prepare          func(t *testing.T, path string)
		refused, exposed string
	}{
		"Kubernetes' 0440":             {0, user, 0o440, nil, none, none},
		"Kubernetes' 0640 and fsGroup": {0, volume, 0o640, nil, none, none},
		"Kubernetes' default, 0644":    {0, 0, 0o644, func(t *testing.T, path string) { readOnly(t, filepath.Dir(path)) }, none, "others can"},
		"its own on a fsGroup's volume": {user, volume, 0o660, func(t *testing.T, path string) {
			if err := os.Chown(filepath.Dir(path), 0, volume); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Dir(path), 0o775|os.ModeSetgid); err != nil {
				t.Fatal(err)
			}
		}, none, none},
		"a file system without modes":     {user, user, 0o755, immutable, none, "others can"},
		"its group's, and no modes":       {user, volume, 0o660, immutable, none, none},
		"another group's, and no modes":   {user, elsewhere, 0o640, immutable, none, "the group 3000 can"},
		"its own, for its group":          {user, user, 0o640, nil, "chmod 600", none},
		"its own, for all":                {user, user, 0o644, nil, "chmod 600", none},
		"the administrator's, for all":    {0, 0, 0o644, nil, "sudo chgrp 65532", none},
		"the administrator's, for itself": {0, 0, 0o600, nil, "permission denied", none},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(publicDir(t), "secret")
			create(t, path, "secret")
			if err := os.Chown(path, test.uid, test.gid); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, test.mode); err != nil {
				t.Fatal(err)
			}
			if test.prepare != nil {
				test.prepare(t, path)
			}
			refused, exposed := asUser(t, program, path)
			if !strings.Contains(refused, test.refused) || !strings.Contains(exposed, test.exposed) {
				t.Errorf("refused: %s\nexposed: %s", refused, exposed)
			}
		})
	}
}

func TestReadSecret_AsRootReadsWhatRootPermitsAGroupToRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for mode, want := range map[os.FileMode]string{0o640: "<nil>", 0o440: "<nil>", 0o660: "chmod 600", 0o644: "chmod 600"} {
		path := filepath.Join(t.TempDir(), "secret")
		create(t, path, "secret")
		if err := os.Chown(path, 0, elsewhere); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := files.ReadSecret(path); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("mode %#o: %v, want %s", mode, err, want)
		}
	}
}

// Another process of the group must be able to open the file at any time.
func TestReadSecret_NeverChangesTheModeOfAFileThatItsVolumeShares(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	create(t, path, "secret")
	for name, mode := range map[string]os.FileMode{dir: 0o775 | os.ModeSetgid, path: 0o660} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	events, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(events)
	if _, err := unix.InotifyAddWatch(events, path, unix.IN_ATTRIB); err != nil {
		t.Skip(err)
	}
	if data, err := files.ReadSecret(path); err != nil || string(data) != "secret" {
		t.Errorf("%q, %v", data, err)
	}
	if n, err := unix.Read(events, make([]byte, 4096)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("%d bytes of events, %v", n, err)
	}
}

// setFlags sets attributes of a file until the test ends: an immutable file refuses
// chmod, as file systems without modes do.
func setFlags(t *testing.T, path string, flags int) {
	t.Helper()
	set := func(flags int) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
	}
	if err := set(flags); err != nil {
		t.Skipf("set attributes: %v", err)
	}
	t.Cleanup(func() {
		if err := set(0); err != nil {
			t.Error(err)
		}
	})
}

func TestExposure_LeavesPipesToTheirReaders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	go func() {
		if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			_, _ = f.WriteString("secret")
			_ = f.Close()
		}
	}()
	if data, err := files.ReadSecret(path); err != nil || string(data) != "secret" {
		t.Errorf("%q, %v", data, err)
	}
	if err := files.Exposure(path); err != nil { // It would wait for another writer.
		t.Error(err)
	}
}
