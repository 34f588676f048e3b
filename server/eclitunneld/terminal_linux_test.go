package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// terminal returns both ends of a pseudo-terminal.
func terminal(t *testing.T) (keyboard, screen *os.File) {
	t.Helper()
	open := func(path string) *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	keyboard = open("/dev/ptmx")
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skip(err)
	}
	number, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skip(err)
	}
	return keyboard, open(fmt.Sprintf("/dev/pts/%d", number))
}

func TestAdminCreate_AsksATerminalForTheSecondAdminsPassword(t *testing.T) {
	url := dbtest.URL(t)
	t.Setenv("ECLITUNNEL_DATABASE_URL", url)
	t.Setenv("ECLITUNNEL_ADMIN_PASSWORD", "of the first admin")
	for _, email := range []string{"first@example.com", "second@example.com"} {
		keyboard, screen := terminal(t)
		// The terminal keeps what is typed ahead.
		if _, err := keyboard.WriteString("of the second admin\nof the second admin\n"); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{"admin", "create", "--email", email, "--log-level", "error"}, screen, &stdout, &stderr)
		if asked := strings.Contains(stderr.String(), "Password: "); code != exitOK || asked != (email == "second@example.com") {
			t.Errorf("%s: exit code %d, %q, %q", email, code, &stdout, &stderr)
		}
	}
	if _, err := dbtest.Open(t, url).UserByEmail(t.Context(), "second@example.com"); err != nil {
		t.Error(err)
	}
}
