package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// panelDatabase makes the commands use a new database, and returns it.
func panelDatabase(t *testing.T) *db.DB {
	t.Helper()
	url := dbtest.URL(t)
	t.Setenv("ECLITUNNEL_DATABASE_URL", url)
	return dbtest.Open(t, url)
}

func devices(t *testing.T, d *db.DB) []db.Device {
	t.Helper()
	all, err := d.Devices(t.Context(), db.Scope{All: true}, db.Page[db.DevicePosition]{})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDeviceCreate_PrintsTheTokenAloneOrPutsItInAFileOfItsOwner(t *testing.T) {
	d := panelDatabase(t)
	edge := []string{"device", "create", "--log-level", "error", "--kind", "server", "--name", "edge-1", "--public-host", "edge-1.example.com", "--region", "eu"}
	code, stdout, stderr := call(t, "", edge...)
	if code != exitOK || strings.Count(stdout, ".") != 2 || strings.Count(stdout, "\n") != 1 || !strings.Contains(stderr, "edge-1") || strings.Contains(stderr, strings.TrimSpace(stdout)) {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	if !strings.Contains(stderr, "reach it at edge-1.example.com.") || strings.Contains(stderr, "warning") {
		t.Errorf("said of its host: %q", stderr)
	}
	path := filepath.Join(t.TempDir(), "token")
	code, printed, stderr := call(t, "", append(edge, "--token-file", path, "--port-range", "30000-30009")...)
	token, err := os.ReadFile(path)
	info, _ := os.Stat(path)
	if code != exitOK || printed != "" || err != nil || strings.Count(string(token), ".") != 2 || info.Mode().Perm() != 0o600 || !strings.Contains(stderr, path) {
		t.Errorf("exit code %d, %q, %q, a file with %q of mode %v, %v", code, printed, stderr, token, info.Mode(), err)
	}
	for i, first := range []int{30000, 20000} { // The newest comes first.
		created := devices(t, d)[i]
		if created.ApprovedAt == nil || created.Kind != db.KindServer || created.PublicHost != "edge-1.example.com" || created.Region != "eu" ||
			created.PortFirst != first || created.PortLast < first+9 || created.OwnerID != nil || created.TokenVersion != 1 {
			t.Errorf("created %+v", created)
		}
	}
	// A token that is in use must not be replaced by that of another device.
	if code, _, stderr := call(t, "", append(edge, "--token-file", path)...); code != exitUsage || !strings.Contains(stderr, path) || len(devices(t, d)) != 2 {
		t.Errorf("a file that exists: exit code %d, %q, %d devices", code, stderr, len(devices(t, d)))
	}
}

func TestDeviceCreate_GivesAnAgentToItsOwner(t *testing.T) {
	d := panelDatabase(t)
	owner, err := d.CreateUser(t.Context(), "ada@example.com", "", "user")
	if err != nil {
		t.Fatal(err)
	}
	code, _, stderr := call(t, "", "device", "create", "--kind", "client", "--name", "home", "--owner", "Ada@example.com")
	if all := devices(t, d); code != exitOK || len(all) != 1 || *all[0].OwnerID != owner.ID || all[0].PortFirst != 0 {
		t.Errorf("exit code %d, %q, %+v", code, stderr, all)
	}
}

func TestDeviceCreate_HoldsToTheRulesOfTheAPI(t *testing.T) {
	d := panelDatabase(t)
	for name, test := range map[string]struct{ args, want string }{
		"no kind":                 {"--name x", "--kind"},
		"unknown kind":            {"--kind relay --name x", "--kind"},
		"no host":                 {"--kind server --name x", "--public-host is required"},
		"a port in the host":      {"--kind server --name x --public-host play.example.com:1", "without a port"},
		"a range backwards":       {"--kind server --name x --public-host play.example.com --port-range 2-1", "--port-range"},
		"ports that do not exist": {"--kind server --name x --public-host play.example.com --port-range 0-70000", "--port-range"},
		"an escape in the name":   {"--kind server --name x\x1b[2J --public-host play.example.com", "control characters"},
		"a long name":             {"--kind server --public-host play.example.com --name " + strings.Repeat("x", 101), "name"},
		"a blank name":            {"--kind server --public-host play.example.com --name \u2003", "name"},
		"an agent of nobody":      {"--kind client --name x", "--owner is required"},
		"a host of an agent":      {"--kind client --name x --owner a@example.com --public-host play.example.com", "--kind server only"},
		"ports of an agent":       {"--kind client --name x --owner a@example.com --port-range 20000-29999", "--kind server only"},
		"an unknown owner":        {"--kind client --name x --owner nobody@example.com", "nobody@example.com"},
		"an unknown organisation": {"--kind client --name x --organisation 7", "--organisation"},
		"two owners":              {"--kind client --name x --organisation 7 --owner a@example.com", "--organisation"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := d.CreateFirstAdmin(t.Context(), "a@example.com", ""); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "token")
			args := append([]string{"device", "create", "--log-level", "error", "--token-file", path}, strings.Split(test.args, " ")...)
			code, stdout, stderr := call(t, "", args...)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, test.want) || strings.Contains(stderr, "\x1b") {
				t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
			}
			if _, err := os.Stat(path); !os.IsNotExist(err) || len(devices(t, d)) != 0 {
				t.Errorf("left %d devices, and a file: %v", len(devices(t, d)), err)
			}
		})
	}
}

func TestDeviceCreate_WarnsOfAHostThatIPv4PlayersCannotReach(t *testing.T) {
	panelDatabase(t)
	for host, warned := range map[string]bool{"2001:db8::7": true, "198.51.100.7": false, "::ffff:198.51.100.7": false} {
		code, _, stderr := call(t, "", "device", "create", "--log-level", "error", "--kind", "server", "--name", "edge", "--public-host", host)
		if code != exitOK || strings.Contains(stderr, "players without IPv6") != warned || !strings.Contains(stderr, "reach it at "+host) {
			t.Errorf("%s: exit code %d, %q", host, code, stderr)
		}
	}
}
