package db_test

import (
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// tunnelServer creates an approved tunnel server with a public host, or the panel's if that is empty.
func tunnelServer(t *testing.T, d *db.DB, host string, guessed bool) db.Device {
	t.Helper()
	pending, err := d.CreateDevice(t.Context(), db.NewDevice{
		Name: "edge", Kind: db.KindServer, UserCode: rand.Text(), CodeHash: []byte(rand.Text()),
		CreatedAt: noon, ExpiresAt: noon.Add(time.Minute), PublicHost: host, HostGuessed: guessed,
	})
	check(t, err)
	_, err = d.ApproveDevice(t.Context(), pending.ID, db.Approval{At: noon, PublicHost: "panel.example.com", PortFirst: 1, PortLast: 9})
	check(t, err)
	_, err = d.NextEnrollmentToken(t.Context(), pending.ID)
	check(t, err)
	return readDevice(t, d, pending.ID)
}

// call connects a tunnel server from an address.
func call(t *testing.T, d *db.DB, device db.Device, from string) {
	t.Helper()
	_, err := d.Connect(t.Context(), device.ID, db.Hello{
		TokenVersion: device.TokenVersion, ReplicaID: startReplica(t, d), RelayPort: 7443, Fingerprint: "ab", CalledFrom: from,
	})
	check(t, err)
}

func wantHost(t *testing.T, d *db.DB, id uuid.UUID, host string, guessed bool) {
	t.Helper()
	if got := readDevice(t, d, id); got.PublicHost != host || got.HostGuessed != guessed {
		t.Errorf("the host is %s, guessed %v; want %s, %v", got.PublicHost, got.HostGuessed, host, guessed)
	}
}

func TestPublicHost_IsAGuessUntilItIsSet(t *testing.T) {
	d := dbtest.New(t)
	for name, host := range map[string]string{"caller's address": "198.51.100.7", "panel's host": ""} {
		t.Run(name, func(t *testing.T) {
			server := tunnelServer(t, d, host, host != "")
			if host == "" {
				host = "panel.example.com"
			}
			wantHost(t, d, server.ID, host, true)
			// Nobody knows yet from where it calls.
			_, err := d.UpdateDevice(t.Context(), everything, server.ID, db.DevicePatch{PublicHost: ptr("")})
			check(t, err)
			wantHost(t, d, server.ID, host, true)
			_, err = d.UpdateDevice(t.Context(), everything, server.ID, db.DevicePatch{Name: ptr("x"), PublicHost: &host})
			check(t, err)
			wantHost(t, d, server.ID, host, false)
			call(t, d, server, "198.51.100.8")
			wantHost(t, d, server.ID, host, false)
			wantErr(t, d.MoveGuess(t.Context(), server.ID, host, "198.51.100.8"), db.ErrConflict)
			_, err = d.UpdateDevice(t.Context(), everything, server.ID, db.DevicePatch{PublicHost: ptr("")})
			check(t, err)
			wantHost(t, d, server.ID, "198.51.100.8", true)
			wantErr(t, d.MoveGuess(t.Context(), server.ID, host, "198.51.100.9"), db.ErrConflict)
			check(t, d.MoveGuess(t.Context(), server.ID, "198.51.100.8", "198.51.100.9"))
			wantHost(t, d, server.ID, "198.51.100.9", true)
		})
	}
	wantHost(t, d, tunnelServer(t, d, "fra1.example.com", false).ID, "fra1.example.com", false)
	embedded, err := d.EnsureEmbeddedServer(t.Context(), db.EmbeddedServer{Name: "panel", PublicHost: "play.example.com", PortFirst: 1, PortLast: 9})
	check(t, err)
	wantHost(t, d, embedded.ID, "play.example.com", false)
}

func TestPublicHost_ThatAPreviousVersionOfThePanelSetsIsGiven(t *testing.T) {
	d := dbtest.New(t)
	server := tunnelServer(t, d, "198.51.100.7", true)
	_, err := dbtest.SQL(t, d).ExecContext(t.Context(), `UPDATE devices SET public_host = 'fra1.example.com'`)
	check(t, err)
	wantHost(t, d, server.ID, "fra1.example.com", false)
	wantErr(t, d.MoveGuess(t.Context(), server.ID, "fra1.example.com", "198.51.100.8"), db.ErrConflict)
}

func TestDueHosts_AreThoseThatHaveConnectedOrChangedAndLaterAll(t *testing.T) {
	d := dbtest.New(t)
	startEnrollment(t, d, db.KindServer)
	enroll(t, d, db.KindClient, nil)
	due := func(again time.Duration) (called, quiet []uuid.UUID) {
		t.Helper()
		checks, err := d.DueHosts(t.Context(), 10, again)
		check(t, err)
		for _, c := range checks {
			if c.Called {
				called = append(called, c.ID)
			} else {
				quiet = append(quiet, c.ID)
			}
		}
		return called, quiet
	}
	want := func(what string, servers ...db.Device) {
		t.Helper()
		called, quiet := due(time.Hour)
		for _, server := range servers {
			if !slices.Contains(called, server.ID) {
				t.Errorf("%s: %s is not due", what, server.ID)
			}
		}
		if len(called) != len(servers) || len(quiet) > 0 {
			t.Errorf("%s: %v and %v are due", what, called, quiet)
		}
	}
	guessed, given := tunnelServer(t, d, "198.51.100.7", true), tunnelServer(t, d, "fra1.example.com", false)
	want("approved", guessed, given)
	want("checked")
	call(t, d, guessed, "198.51.100.7")
	want("connected", guessed)
	_, err := d.UpdateDevice(t.Context(), everything, given.ID, db.DevicePatch{Name: ptr("new")})
	check(t, err)
	want("renamed")
	_, err = d.UpdateDevice(t.Context(), everything, given.ID, db.DevicePatch{PublicHost: ptr("fra2.example.com")})
	check(t, err)
	want("another host", given)
	spec := db.EmbeddedServer{Name: "panel", PublicHost: "play.example.com", PortFirst: 1, PortLast: 9}
	embedded, err := d.EnsureEmbeddedServer(t.Context(), spec)
	check(t, err)
	want("a new embedded one", embedded)
	_, err = d.EnsureEmbeddedServer(t.Context(), spec)
	check(t, err)
	want("the panel has started again", embedded)

	call(t, d, guessed, "198.51.100.7")
	if called, quiet := due(0); len(called) != 1 || len(quiet) != 0 {
		t.Errorf("due are %v and %v", called, quiet)
	}
	if called, quiet := due(time.Hour); len(called) != 0 || len(quiet) != 1 {
		t.Errorf("its time has come for %v and %v", called, quiet)
	}
}

func TestPublicAddresses_AreOfTheHostThatTheTunnelServerHasNow(t *testing.T) {
	d := dbtest.New(t)
	server, client := tunnelServer(t, d, "fra1.example.com", false), enroll(t, d, db.KindClient, nil)
	made := allocate(t, d, client.ID, server.ID)
	events := listen(t, d)
	want := func(what string, unresolved bool, addresses ...string) {
		t.Helper()
		device := readDevice(t, d, server.ID)
		allocation, err := d.Allocation(t.Context(), everything, made.ID)
		check(t, err)
		ofClient, err := d.ClientState(t.Context(), client.ID)
		check(t, err)
		ofServer, err := d.ServerState(t.Context(), server.ID)
		check(t, err)
		for where, got := range map[string][]string{
			"device": device.PublicAddresses.List(), "allocation": allocation.PublicAddresses.List(),
			"client's state": ofClient.Servers[0].PublicAddresses.List(), "server's state": ofServer.Host.PublicAddresses.List(),
		} {
			if !slices.Equal(got, addresses) {
				t.Errorf("%s: the %s has %v, want %v", what, where, got, addresses)
			}
		}
		if (device.UnresolvedSince != nil) != unresolved {
			t.Errorf("%s: not found since %v", what, device.UnresolvedSince)
		}
	}
	want("not looked up", false)
	list := []string{"203.0.113.7", "2001:db8::7"}
	both := db.JoinAddresses(list)
	check(t, d.SaveAddresses(t.Context(), server.ID, "fra1.example.com", both))
	wantEvents(t, events, "addresses", client, server)
	want("looked up", false, list...)
	check(t, d.SaveAddresses(t.Context(), server.ID, "fra1.example.com", both))         // no event
	check(t, d.SaveAddresses(t.Context(), server.ID, "old.example.com", "2001:db8::7")) // no event
	want("looked up again", false, list...)
	check(t, d.SaveUnresolved(t.Context(), server.ID, "fra1.example.com"))
	wantEvents(t, events, "the name is gone", server)
	want("gone", true, list...)
	since := readDevice(t, d, server.ID).UnresolvedSince
	check(t, d.SaveUnresolved(t.Context(), server.ID, "fra1.example.com"))
	if again := readDevice(t, d, server.ID).UnresolvedSince; !again.Equal(*since) {
		t.Errorf("gone since %v, then since %v", since, again)
	}
	wantEvents(t, events, "the name is still gone", server)
	check(t, d.SaveAddresses(t.Context(), server.ID, "fra1.example.com", both))
	wantEvents(t, events, "the name is back", client, server)
	want("back", false, list...)
	_, err := d.UpdateDevice(t.Context(), everything, server.ID, db.DevicePatch{PublicHost: ptr("fra2.example.com")})
	check(t, err)
	wantEvents(t, events, "another host", client, server)
	want("another host", false)
	check(t, d.SaveUnresolved(t.Context(), server.ID, "fra2.example.com"))
	want("a host that does not exist", true)
}
