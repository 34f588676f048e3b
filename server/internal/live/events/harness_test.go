package events_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/handler"
	"github.com/eclitunnel/eclitunnel/server/internal/live/events"
)

// replica is a Hub behind an HTTP server whose time limits are those of a hurry.
type replica struct {
	*events.Hub
	t   *testing.T
	db  *db.DB
	url string
}

// follower is a caller of a replica.
type follower struct {
	user         int64
	organisation int64 // Of an API key.
	admin        bool
	scopes       []string // Of an API key; nil for a session.
}

func newReplica(t *testing.T, d *db.DB, change ...func(*events.Options)) *replica {
	t.Helper()
	options := events.Options{
		Store: d, Authenticate: func(*http.Request) (auth.Principal, error) { panic("no foreign credentials") },
		Device: handler.Device("0.1.0"), Allocation: handler.Allocation, PerAccount: 5000, Streams: 5000,
	}
	for _, f := range change {
		f(&options)
	}
	hub, err := events.New(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- hub.Run(ctx) }()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var p auth.Principal
		if err := json.Unmarshal([]byte(r.Header.Get("X-Principal")), &p); err != nil {
			t.Error(err)
		}
		hub.ServeHTTP(w, r.WithContext(auth.NewContext(r.Context(), p)))
	}))
	server.Config.ReadTimeout, server.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	server.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		_ = conn.(*net.TCPConn).SetWriteBuffer(64 << 10) // Full soon, if nobody reads.
		return ctx
	}
	server.Start()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return &replica{hub, t, d, server.URL}
}

// principal creates the credential of a caller.
func (r *replica) principal(f follower) auth.Principal {
	r.t.Helper()
	sql := dbtest.SQL(r.t, r.db)
	var p auth.Principal
	if f.user != 0 {
		p.User = &db.User{ID: f.user, Role: "user"}
		if f.admin {
			p.User.Role = "admin"
		}
	}
	if f.scopes == nil {
		p.Session = &db.Session{ID: uuid.New(), UserID: f.user}
		_, err := sql.ExecContext(r.t.Context(), `INSERT INTO sessions (id, user_id, expires_at) VALUES ($1, $2, now() + interval '1 hour')`, p.Session.ID, f.user)
		check(r.t, err)
		return p
	}
	p.Key = &db.APIKey{Scopes: f.scopes}
	if f.user != 0 {
		p.Key.UserID = &f.user
	} else {
		p.Key.OrganisationID = &f.organisation
	}
	check(r.t, sql.QueryRowContext(r.t.Context(),
		`INSERT INTO api_keys (user_id, organisation_id, name, prefix, hash, scopes, created_at) VALUES ($1, $2, 'key', 'etk_', $3, $4, now()) RETURNING id`,
		p.Key.UserID, p.Key.OrganisationID, uuid.New().String(), p.Key.Scopes).Scan(&p.Key.ID))
	return p
}

// stream is an open stream, which its test reads.
type stream struct {
	t     *testing.T
	conn  net.Conn
	lines *bufio.Reader
	id    string // Of the last event.
}

// follow opens a stream.
func (r *replica) follow(p auth.Principal, path, lastEventID string) *stream {
	r.t.Helper()
	address := strings.TrimPrefix(r.url, "http://")
	conn, err := net.Dial("tcp", address)
	check(r.t, err)
	r.t.Cleanup(func() { _ = conn.Close() })
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+path, http.NoBody)
	check(r.t, err)
	text, err := json.Marshal(p)
	check(r.t, err)
	request.Header.Set("X-Principal", string(text))
	if lastEventID != "" {
		request.Header.Set("Last-Event-ID", lastEventID)
	}
	check(r.t, request.Write(conn))
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	check(r.t, err)
	if response.StatusCode != http.StatusOK {
		r.t.Fatalf("status %d", response.StatusCode)
	}
	return &stream{t: r.t, conn: conn, lines: bufio.NewReader(response.Body)}
}

// next returns the type of the next event with the name of what it shows, or "" if the stream has ended.
func (s *stream) next() string {
	s.t.Helper()
	check(s.t, s.conn.SetReadDeadline(time.Now().Add(await.Timeout)))
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return ""
		}
		switch name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); name {
		case "id":
			s.id = value
		case "data":
			var event struct {
				Type       string
				Device     *types.Device
				Allocation *types.Allocation
				Usage      []types.LiveUsage
			}
			check(s.t, json.Unmarshal([]byte(value), &event))
			switch {
			case event.Device != nil:
				return event.Type + " " + event.Device.Name
			case event.Allocation != nil:
				return event.Type + " " + event.Allocation.Name
			}
			for _, of := range event.Usage {
				event.Type += fmt.Sprintf(" %d: %d players", of.AllocationID, of.Players)
			}
			return event.Type
		}
	}
}

func (s *stream) want(want ...string) {
	s.t.Helper()
	for _, w := range want {
		if got := s.next(); got != w {
			s.t.Fatalf("the next event is %q, want %q", got, w)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var everything = db.Scope{All: true}

func newUser(t *testing.T, d *db.DB, name string) int64 {
	t.Helper()
	user, err := d.CreateUser(t.Context(), name+"@example.com", "hash", "user")
	check(t, err)
	return user.ID
}

// newDevice creates a device of a user, of an organisation or, where both are 0, of nobody.
func newDevice(t *testing.T, d *db.DB, kind, name string, user, organisation int64) uuid.UUID {
	t.Helper()
	device := db.NewDevice{Name: name, Kind: kind, Approved: true, PublicHost: "play.example.com", PortFirst: 20000, PortLast: 20099}
	if kind == db.KindClient {
		device.PublicHost, device.PortFirst, device.PortLast = "", 0, 0
	}
	if user != 0 {
		device.OwnerID = &user
	}
	if organisation != 0 {
		device.OrganisationID = &organisation
	}
	made, err := d.CreateDevice(t.Context(), device)
	check(t, err)
	return made.ID
}

func newAllocation(t *testing.T, d *db.DB, client, server uuid.UUID, name string) int64 {
	t.Helper()
	made, err := d.CreateAllocations(t.Context(), db.NewAllocation{
		DeviceID: client, ServerID: &server, Protocols: []string{"tcp"}, Name: name,
		LocalHost: "127.0.0.1", LocalPort: 25565, ProxyProtocol: "none", UDPIdleSeconds: 60,
	})
	check(t, err)
	return made[0].ID
}

func rename(t *testing.T, d *db.DB, device uuid.UUID, name string) {
	t.Helper()
	_, err := d.UpdateDevice(t.Context(), everything, device, db.DevicePatch{Name: &name})
	check(t, err)
}

// numbered returns names with numbers.
func numbered(name string, n int) string { return name + strconv.Itoa(n) }
