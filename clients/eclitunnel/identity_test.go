package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestCommands_SayWhoseSecretTheEnvironmentGives(t *testing.T) {
	p := newPanel(t)
	other, own := deviceToken(uuid.New(), types.DeviceKindClient), p.token
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		variable, value string
		args            []string
		said            bool
	}{
		"another device's token":        {"ECLITUNNEL_TOKEN", other, []string{"list"}, true},
		"another device's token's file": {"ECLITUNNEL_TOKEN_FILE", file, []string{"status"}, true},
		"this device's token":           {"ECLITUNNEL_TOKEN", own, []string{"status"}, false},
		"a person's session":            {"ECLITUNNEL_SESSION_TOKEN", "session", []string{"enroll", "--force", "--panel", p.URL}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p.polls = []answer{approved(p.token)}
			m := enrolledAt(t, p)
			m.env[c.variable] = c.value
			named := c.variable
			if c.value == file {
				named = file
			}
			if o := m.run(c.args...); strings.Contains(o.stderr, named) != c.said {
				t.Errorf("exit code %d, %q", o.code, o.stderr)
			}
		})
	}
}
