package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/prompt/prompttest"
)

func TestAdminCreate_AsksATerminalForTheSecondAdminsPassword(t *testing.T) {
	url := dbtest.URL(t)
	t.Setenv("ECLITUNNEL_DATABASE_URL", url)
	t.Setenv("ECLITUNNEL_ADMIN_PASSWORD", "of the first admin")
	for _, email := range []string{"first@example.com", "second@example.com"} {
		keyboard, screen := prompttest.Terminal(t)
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
