package events_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// twoPanels are replicas on one database.
func twoPanels(t *testing.T) (a, b *servertest.Panel) {
	t.Helper()
	url := dbtest.URL(t)
	panel := func(name string) *servertest.Panel {
		return servertest.Start(t, func(o *server.Options) {
			o.Database.URL = url
			o.TunnelServer.Name = name
		})
	}
	return panel("a"), panel("b")
}

const password = "a password of theirs"

// person creates a user, and returns the id and a session.
func person(t *testing.T, p *servertest.Panel, email string) (int64, string) {
	t.Helper()
	admin := p.Admin()
	created, err := admin.CreateUserWithResponse(t.Context(), types.UserCreate{Email: types.Email(email)})
	if err != nil || created.JSON201 == nil {
		t.Fatalf("create user: %v %s", err, created.Body)
	}
	link, err := admin.CreatePasswordLinkWithResponse(t.Context(), created.JSON201.ID)
	if err != nil || link.JSON200 == nil {
		t.Fatalf("password link: %v %s", err, link.Body)
	}
	_, token, _ := strings.Cut(*link.JSON200.URL, "#")
	set, err := p.Client("").SetPasswordWithResponse(t.Context(), types.PasswordSet{Token: token, Password: password})
	if err != nil || set.StatusCode() >= 300 {
		t.Fatalf("password: %v %s", err, set.Body)
	}
	return created.JSON201.ID, login(t, p, email)
}

func login(t *testing.T, p *servertest.Panel, email string) string {
	t.Helper()
	resp, err := p.Client("").LoginWithResponse(t.Context(), types.LoginRequest{Email: types.Email(email), Password: password})
	if err != nil || resp.JSON200 == nil {
		t.Fatalf("login: %v %s", err, resp.Body)
	}
	return resp.JSON200.Token
}

// own creates an approved device of a person.
func own(t *testing.T, p *servertest.Panel, owner int64, name string) types.DeviceCreated {
	t.Helper()
	resp, err := p.Admin().CreateDeviceWithResponse(t.Context(), types.DeviceCreate{Name: name, OwnerID: &owner})
	if err != nil || resp.JSON201 == nil {
		t.Fatalf("create device: %v %s", err, resp.Body)
	}
	return *resp.JSON201
}

func renameBy(t *testing.T, api *client.ClientWithResponses, device types.DeviceCreated, name string) {
	t.Helper()
	resp, err := api.UpdateDeviceWithResponse(t.Context(), device.Device.ID, types.DevicePatch{Name: &name})
	if err != nil || resp.JSON200 == nil {
		t.Fatalf("rename: %v %s", err, resp.Body)
	}
}

func TestEvents_EveryChangeArrivesOnceFromEveryReplica(t *testing.T) {
	a, b := twoPanels(t)
	ada, session := person(t, a, "ada@example.com")
	streams := []*servertest.Stream{a.Follow(session, "", ""), b.Follow(session, "", "")}
	for _, s := range streams {
		s.Want("ready")
	}
	want := func(events ...string) {
		t.Helper()
		for _, s := range streams {
			s.Want(events...)
		}
	}
	api := b.Client(session)
	device := own(t, b, ada, "home")
	want("device.created home")
	renameBy(t, api, device, "rig")
	want("device.updated rig")
	agent := a.Connect(servertest.Device{ID: device.Device.ID, Token: device.Token})
	snapshot := controltest.Next[types.ClientSnapshot](agent)
	want("device.updated rig")
	made, err := api.CreateAllocationWithResponse(t.Context(), types.AllocationCreate{
		DeviceID: &device.Device.ID, Protocol: types.CreateTCP, LocalPort: 25565, Name: new("game"),
	})
	if err != nil || made.JSON201 == nil {
		t.Fatalf("allocate: %v %s", err, made.Body)
	}
	want("allocation.created game")
	change := controltest.Next[types.ClientChange](agent)
	if change.Revision <= snapshot.Revision {
		t.Fatal("the revision does not grow")
	}
	// The tunnel server's report is one, and the client's the other, in whatever order.
	agent.Send(types.StatusReport{
		Type: types.TypeStatus, Revision: change.Revision,
		Allocations: []types.AllocationReport{{ID: made.JSON201.ID, State: types.ReportReady}},
	})
	want("allocation.updated game", "allocation.updated game")
	if resp, err := api.DeleteAllocationWithResponse(t.Context(), made.JSON201.ID); err != nil || resp.JSON200 == nil {
		t.Fatalf("delete: %v %s", err, resp.Body)
	}
	want("allocation.deleted")
	_ = agent.WS.Close()
	want("device.updated rig")
	if resp, err := api.DeleteDeviceWithResponse(t.Context(), device.Device.ID); err != nil || resp.JSON200 == nil {
		t.Fatalf("delete: %v %s", err, resp.Body)
	}
	want("device.deleted " + device.Device.ID.String())
}

func TestEvents_GoOnAtAnotherReplica(t *testing.T) {
	a, b := twoPanels(t)
	ada, session := person(t, a, "ada@example.com")
	api := b.Client(session)
	device := own(t, b, ada, "home")
	before := a.Follow(session, "", "")
	last := before.Want("ready")
	for i := range 5 {
		renameBy(t, api, device, fmt.Sprint("name", i))
		last = before.Want(fmt.Sprint("device.updated name", i))
	}
	a.Stop()
	if event, open := <-before.Events; open {
		t.Fatalf("event %+v of a panel that has stopped", event)
	}
	// The other replica has nobody who follows yet, and reads back.
	renameBy(t, api, device, "meanwhile")
	after := b.Follow(session, "", last.ID)
	if ready := after.Want("ready"); ready.ID != last.ID {
		t.Errorf("ready is at %s, want %s", ready.ID, last.ID)
	}
	last = after.Want("device.updated meanwhile")
	renameBy(t, api, device, "later")
	after.Want("device.updated later")
	// And once more, by the other way to say it, from what it has in memory.
	again := b.Follow(session, "lastEventId="+last.ID, "")
	again.Want("ready", "device.updated later")
	for _, position := range []string{"00000000-1", "garbage", "-", strings.Split(last.ID, "-")[0] + "-zzzzzz"} {
		s := b.Follow(session, "", position)
		if ready := s.Want("ready"); ready.ID != "" {
			t.Errorf("%s: ready is at %s", position, ready.ID)
		}
		if resync := s.Want("resync"); resync.ID == "" {
			t.Errorf("%s: resync is nowhere", position)
		}
		s.Close()
	}
}

func TestEvents_EndWithTheCredentialWithinASecond(t *testing.T) {
	a, b := twoPanels(t)
	admin := a.Admin()
	id, _ := person(t, a, "ada@example.com")
	key := func(session string) (int64, string) {
		t.Helper()
		resp, err := a.Client(session).CreateAPIKeyWithResponse(t.Context(), types.APIKeyCreate{Name: "key", Scopes: []types.APIKeyScope{types.ScopeRead}})
		if err != nil || resp.JSON201 == nil {
			t.Fatalf("create key: %v %s", err, resp.Body)
		}
		return resp.JSON201.ID, resp.JSON201.Key
	}
	for _, test := range []struct {
		name  string
		begin func() (token string, end func())
	}{
		{"logout", func() (string, func()) {
			session := login(t, a, "ada@example.com")
			return session, func() {
				if resp, err := a.Client(session).LogoutWithResponse(t.Context()); err != nil || resp.StatusCode() >= 300 {
					t.Fatalf("%v %s", err, resp.Body)
				}
			}
		}},
		{"revoked key", func() (string, func()) {
			session := login(t, a, "ada@example.com")
			id, key := key(session)
			return key, func() {
				if resp, err := a.Client(session).DeleteAPIKeyWithResponse(t.Context(), id); err != nil || resp.JSON200 == nil {
					t.Fatalf("%v %s", err, resp.Body)
				}
			}
		}},
		{"suspended user", func() (string, func()) { // The last one.
			_, key := key(login(t, a, "ada@example.com"))
			return key, func() {
				if resp, err := admin.UpdateUserWithResponse(t.Context(), id, types.UserPatch{Suspended: new(true)}); err != nil || resp.JSON200 == nil {
					t.Fatalf("%v %s", err, resp.Body)
				}
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			token, end := test.begin()
			here, there := a.Follow(token, "", ""), b.Follow(token, "", "")
			here.Want("ready")
			there.Want("ready")
			end()
			ended := time.Now()
			for _, s := range []*servertest.Stream{here, there} {
				if event, open := <-s.Events; open {
					t.Fatalf("event %+v", event)
				}
				if took := time.Since(ended); took > time.Second {
					t.Errorf("it ended after %v", took)
				}
			}
			if s := b.Follow(token, "", ""); s.Status != http.StatusUnauthorized {
				t.Errorf("status %d", s.Status)
			}
		})
	}
}

func TestEvents_ShutdownWaitsForNoStream(t *testing.T) {
	p := servertest.Start(t)
	s := p.Follow(p.Login(), "", "")
	s.Want("ready")
	began := time.Now()
	p.Stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, open := <-s.Events; open {
		t.Error("the stream goes on")
	}
}

func TestEvents_OneAccountCannotTakeAllStreams(t *testing.T) {
	p := servertest.Start(t)
	session := p.Login()
	for range 20 {
		p.Follow(session, "types=device", "").Want("ready")
	}
	resp, err := p.Admin().StreamEvents(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("status %d", resp.StatusCode)
	}
	_, other := person(t, p, "ada@example.com")
	p.Follow(other, "", "").Want("ready")
}
