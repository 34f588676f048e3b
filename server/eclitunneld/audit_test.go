package main

import (
	"os/user"
	"slices"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// TestCommands_AreInTheAuditTrailWithTheirUser changes something with every command that does.
func TestCommands_AreInTheAuditTrailWithTheirUser(t *testing.T) {
	const password = "correct horse battery"
	url := dbtest.URL(t)
	t.Setenv("ECLITUNNEL_DATABASE_URL", url)
	for _, args := range [][]string{
		{"admin", "create", "--email", "root@example.com", "--password-file", "-"},
		{"device", "create", "--kind", "client", "--name", "home", "--owner", "root@example.com"},
		{"keys", "revoke", "--all"},
	} {
		if code, stdout, stderr := call(t, password, append(args, "--log-level", "error")...); code != exitOK {
			t.Fatalf("%v: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
	operator, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := dbtest.Open(t, url).Audit(t.Context(), db.AuditFilter{ActorKind: db.ActorCommand, ActorID: operator.Username}, db.Page[db.AuditPosition]{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Action)
	}
	slices.Reverse(got)
	if want := []string{"user.create", "signing_key.create", "device.create", "signing_key.revoke", "signing_key.create"}; !slices.Equal(got, want) {
		t.Errorf("the trail is %q, want %q", got, want)
	}
}
