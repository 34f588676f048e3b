package main

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/server"
)

func TestKeys_AreListedAndRevoked(t *testing.T) {
	url := dbtest.URL(t)
	t.Setenv("ECLITUNNEL_DATABASE_URL", url)
	if _, err := dbtest.Open(t, url).EnsureSigningKey(t.Context(), db.SigningKey{ID: "LEAKED", Seed: make([]byte, 32)}); err != nil {
		t.Fatal(err)
	}
	keys := func(want int, args ...string) string {
		t.Helper()
		code, stdout, stderr := call(t, "", append(append([]string{"keys"}, args...), "--log-level", "error")...)
		if code != want {
			t.Fatalf("keys %v: exit code %d, %q, %q", args, code, stdout, stderr)
		}
		return stdout + stderr
	}
	list := strings.Fields(keys(exitOK, "list"))
	if len(list) != 9 || list[5] != "LEAKED" || list[6] != "signs" {
		t.Errorf("list: %q", list)
	}
	if got := keys(exitFailed, "revoke", "MISTYPED"); !strings.Contains(got, "MISTYPED") {
		t.Errorf("an unknown key: %q", got)
	}
	if got := keys(exitOK, "revoke", "--all"); !strings.Contains(got, "Revoked 1 signing keys") {
		t.Errorf("revoke: %q", got)
	}
	if list := keys(exitOK, "list"); strings.Contains(list, "LEAKED") || !strings.Contains(list, "signs") {
		t.Errorf("list afterwards: %q", list)
	}
}

func TestKeys_NamesForgeNoRows(t *testing.T) {
	names := map[string]string{
		"home":                   "home",
		"a\nforged\tserver":      `a\nforged\tserver`,
		"a\x1b[2Jb":              `a\x1b[2Jb`,
		"gnp.\u202eexe":          `gnp.\u202eexe`,
		"\u00dcber \u751f\u5b58": "\u00dcber \u751f\u5b58",
	}
	var devices []server.RevokedDevice
	for name := range names {
		devices = append(devices, server.RevokedDevice{ID: uuid.New(), Kind: "client", Name: name})
	}
	var out strings.Builder
	if err := report(&out, 1, server.Database{}, server.Revocation{Devices: devices}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 2+len(devices) {
		t.Errorf("%d lines for %d devices: %q", n, len(devices), &out)
	}
	for _, shown := range names {
		if !strings.Contains(out.String(), "  client  "+shown+"\n") {
			t.Errorf("%q is not in %q", shown, out.String())
		}
	}
}
