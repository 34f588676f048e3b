package handler_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// TestPolicy_IsWhatThePanelAnswers sends every row of the table as every caller.
func TestPolicy_IsWhatThePanelAnswers(t *testing.T) {
	w := newWorld(t)
	callers := []policyCaller{
		{"nobody", auth.NoCredential, func(*target) caller { return w.anonymous() }, false},
		{"an expired session", auth.EndedSession, func(*target) caller { return w.expired(t) }, false},
		{"a revoked session", auth.EndedSession, func(*target) caller { return w.revoked(t, false) }, false},
		{"the cookie of a revoked session", auth.EndedSession, func(*target) caller { return w.revoked(t, true) }, false},
		{"a revoked device token", auth.EndedSession, func(*target) caller { return w.revokedDevice(t) }, false},
		{"a revoked API key", auth.EndedSession, func(*target) caller { return w.revokedKey(t) }, false},
		{"an expired API key", auth.EndedSession, func(*target) caller { return w.expiredKey(t) }, false},
		{"an API key of a suspended user", auth.EndedSession, func(*target) caller { return w.suspendedKey(t) }, false},
		{"a stranger", auth.Stranger, func(*target) caller { return w.session(t, w.stranger) }, false},
		{"a stranger to the organisation", auth.Stranger, func(*target) caller { return w.session(t, w.stranger) }, true},
		{"a member", auth.Member, func(*target) caller { return w.session(t, w.member) }, true},
		{"the organisation's admin", auth.OrgAdmin, func(*target) caller { return w.session(t, w.orgAdmin) }, true},
		{"the organisation's owner", auth.Owner, func(*target) caller { return w.session(t, w.orgOwner) }, true},
		{"the owner", auth.Owner, func(*target) caller { return w.session(t, w.owner) }, false},
		{"an admin", auth.SiteAdmin, func(*target) caller { return w.session(t, w.admin) }, false},
		{"an admin, of the organisation's", auth.SiteAdmin, func(*target) caller { return w.session(t, w.admin) }, true},
		{"the tunnel client", auth.OwnClient, func(to *target) caller { return w.as(t, to.client(t, w)) }, false},
		{"the tunnel server", auth.OwnServer, func(to *target) caller { return w.as(t, to.tunnelServer(t, w)) }, false},
		{"another tunnel client", auth.OtherDevice, func(to *target) caller { return w.as(t, w.newDevice(t, db.KindClient, to)) }, false},
		{"another tunnel server", auth.OtherDevice, func(to *target) caller { return w.as(t, w.newDevice(t, db.KindServer, to)) }, false},
	}
	for _, row := range policyRows(t) {
		send, ok := policyRequests[row.String()]
		if !ok {
			t.Errorf("there is no request for %s", row)
			continue
		}
		checked := map[auth.Caller]bool{}
		for _, c := range callers {
			if checksPasswords[row.operation] && checked[c.column] {
				continue
			}
			checked[c.column] = true
			if row.ofOrganisation() && c.column == auth.Owner && !c.organisation {
				continue // Nobody owns an organisation alone.
			}
			to := w.newTarget(c.organisation || row.ofOrganisation())
			to.server = c.column == auth.OwnServer
			if got, want := send(w, t, c.as(to), to), row.rule[c.column]; got != want {
				t.Errorf("%s by %s: answered %d, want %d", row, c.name, got, want)
			}
		}
	}
}

// ofOrganisation reports whether a request is about an organisation, whoever the caller is.
func (r policyRow) ofOrganisation() bool {
	return strings.Contains(r.path, "/organisations/") || r.what == auth.Organisation || r.operation == "listOrganisations"
}

// policyCaller is a caller of a column of the table.
type policyCaller struct {
	name         string
	column       auth.Caller
	as           func(to *target) caller
	organisation bool // What the request is about belongs to the organisation.
}

// target is what a request is about, made when it is asked for.
type target struct {
	owner, organisation *int64
	devices             map[string]db.Device
	allocation          string // The id of the allocation; "" if there is none yet.
	webhook             *db.Webhook
	// server means that a request about a device is about the tunnel server.
	server bool
}

func (to *target) device(t *testing.T, w *world, name, kind string) db.Device {
	t.Helper()
	device, ok := to.devices[name]
	if !ok {
		device = w.newDevice(t, kind, to)
		to.devices[name] = device
	}
	return device
}

func (to *target) client(t *testing.T, w *world) db.Device {
	t.Helper()
	return to.device(t, w, "client", db.KindClient)
}

func (to *target) tunnelServer(t *testing.T, w *world) db.Device {
	t.Helper()
	return to.device(t, w, "server", db.KindServer)
}

// placeholder returns what a placeholder of a request stands for.
func (to *target) placeholder(t *testing.T, w *world, name string) string {
	t.Helper()
	switch name {
	case "{client}":
		return to.client(t, w).ID.String()
	case "{server}":
		return to.tunnelServer(t, w).ID.String()
	case "{device}":
		if to.server {
			return to.placeholder(t, w, "{server}")
		}
		return to.placeholder(t, w, "{client}")
	case "{cordoned}":
		id, cordoned := to.device(t, w, "cordoned", db.KindServer).ID, true
		if _, err := w.db.UpdateDevice(t.Context(), db.Scope{All: true}, id, db.DevicePatch{Cordoned: &cordoned}); err != nil {
			t.Fatal(err)
		}
		return id.String()
	case "{allocation}":
		if to.allocation != "" {
			return to.allocation
		}
		server := to.tunnelServer(t, w).ID
		rows, err := w.db.CreateAllocations(t.Context(), db.NewAllocation{
			DeviceID: to.client(t, w).ID, ServerID: &server, Protocols: []string{"tcp"},
			LocalHost: "127.0.0.1", LocalPort: 25565, ProxyProtocol: "none", UDPIdleSeconds: 60,
		})
		if err != nil {
			t.Fatal(err)
		}
		to.allocation = strconv.FormatInt(rows[0].ID, 10)
		return to.allocation
	case "{keptOut}":
		w.exec(t, `INSERT INTO kept_out (allocation_id, source, until) VALUES ($1, '203.0.113.60', now() + interval '1 hour')
			ON CONFLICT (allocation_id, source) DO UPDATE SET until = excluded.until`,
			to.placeholder(t, w, "{allocation}"))
		return "203.0.113.60"
	case "{connection}":
		return w.player(t, to.tunnelServer(t, w).ID, to.placeholder(t, w, "{allocation}"))
	case "{email}":
		return uuid.NewString() + "@example.com"
	case "{user}", "{link}":
		user, err := w.db.CreateUser(t.Context(), to.placeholder(t, w, "{email}"), "", "user")
		if err != nil {
			t.Fatal(err)
		}
		if name == "{user}" {
			return strconv.FormatInt(user.ID, 10)
		}
		link, err := w.auth.NewPasswordLink(t.Context(), user.ID)
		if err != nil {
			t.Fatal(err)
		}
		return link.URL.Fragment
	case "{keys}":
		if to.organisation != nil {
			return "organisationId=" + strconv.FormatInt(w.organisation, 10)
		}
		return "userId=" + strconv.FormatInt(w.owner.ID, 10)
	case "{key}":
		w.exec(t, `DELETE FROM api_keys WHERE name = 'target'`) // An owner has few.
		_, key := w.newKey(t, db.APIKey{Name: "target", APIKeyOwner: db.APIKeyOwner{UserID: to.owner, OrganisationID: to.organisation}}, auth.ScopeRead)
		return strconv.FormatInt(key.ID, 10)
	case "{webhook}":
		return strconv.FormatInt(to.newWebhook(t, w).ID, 10)
	case "{delivery}":
		return strconv.FormatInt(to.newDelivery(t, w), 10)
	case "{organisation}":
		return strconv.FormatInt(w.organisation, 10)
	case "{disposable}":
		return strconv.FormatInt(w.newOrganisation(t), 10)
	case "{member}", "{coOwner}":
		role := db.RoleMember
		if name == "{coOwner}" {
			role = db.RoleOwner
		}
		id := to.placeholder(t, w, "{user}")
		w.exec(t, `INSERT INTO organisation_members (organisation_id, user_id, role) VALUES ($1, $2, $3)`, w.organisation, id, role)
		return id
	case "{invitation}":
		return w.invite(t, w.organisation, db.RoleMember, uuid.NewString())
	case "{ownerInvitation}":
		return w.invite(t, w.organisation, db.RoleOwner, uuid.NewString())
	case "{invitationToken}":
		secret := uuid.NewString()
		w.invite(t, w.newOrganisation(t), db.RoleMember, secret)
		return secret
	case "{userCode}":
		return w.waiting(t, db.KindClient, to)
	case "{serverCode}":
		return w.waiting(t, db.KindServer, to)
	case "{unownedCode}":
		return w.waiting(t, db.KindClient, &target{})
	case "{deviceCode}":
		return w.pending(t).DeviceCode
	case "{loginCode}", "{loginDeviceCode}":
		userCode, deviceCode := w.newLogin(t)
		if name == "{loginCode}" {
			return userCode
		}
		return deviceCode
	}
	t.Fatalf("unknown placeholder %s", name)
	return ""
}

// world is a panel with users who are something to each other.
type world struct {
	*panel
	admin, owner, stranger, member, orgAdmin, orgOwner db.User
	organisation                                       int64
	exec                                               func(t *testing.T, query string, args ...any)
}

func newWorld(t *testing.T) *world {
	w := &world{panel: newPanel(t)}
	sql := dbtest.SQL(t, w.db)
	w.exec = func(t *testing.T, query string, args ...any) {
		t.Helper()
		if _, err := sql.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	for role, user := range map[string]*db.User{
		"root": &w.admin, "ada": &w.owner, "eve": &w.stranger, "mia": &w.member, "ali": &w.orgAdmin, "otto": &w.orgOwner,
	} {
		var err error
		site := types.RoleUser
		if role == "root" {
			site = types.RoleAdmin
		}
		if *user, err = w.db.CreateUser(t.Context(), role+"@example.com", "hash", string(site)); err != nil {
			t.Fatal(err)
		}
	}
	w.organisation = w.newOrganisation(t)
	return w
}

// session logs a user in. The password may have been changed since the user was created.
func (w *world) session(t *testing.T, user db.User) caller {
	t.Helper()
	user, err := w.db.UserByID(t.Context(), user.ID)
	if err != nil {
		t.Fatal(err)
	}
	login, err := w.auth.NewSession(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return caller{panel: w.panel, user: user, token: login.Token}
}

func (w *world) revoked(t *testing.T, cookie bool) caller {
	t.Helper()
	c := w.session(t, w.admin)
	decode[any](t, c.send(t, "POST", "/api/auth/logout", nil), 204)
	c.cookie = cookie
	return c
}

func (w *world) expired(t *testing.T) caller {
	t.Helper()
	c := w.session(t, w.admin)
	w.exec(t, `UPDATE sessions SET expires_at = $1`, w.Now().Add(-time.Second))
	return c
}

func (w *world) revokedDevice(t *testing.T) caller {
	t.Helper()
	device := w.newDevice(t, db.KindClient, &target{owner: &w.owner.ID})
	c := w.as(t, device)
	if _, err := w.db.RegenerateToken(t.Context(), db.Scope{All: true}, device.ID); err != nil {
		t.Fatal(err)
	}
	return c
}

// as returns a device as a caller.
func (w *world) as(t *testing.T, device db.Device) caller {
	t.Helper()
	token, err := w.auth.DeviceToken(device.ID, device.Kind, device.TokenVersion)
	if err != nil {
		t.Fatal(err)
	}
	return caller{panel: w.panel, token: token}
}

// newDevice makes a device of the target's owner that is online.
func (w *world) newDevice(t *testing.T, kind string, to *target) db.Device {
	t.Helper()
	created := db.NewDevice{Name: "home", Kind: kind, OwnerID: to.owner, OrganisationID: to.organisation, CreatedAt: w.Now(), ExpiresAt: w.Now(), Approved: true}
	if kind == db.KindServer {
		created.PublicHost, created.PortFirst, created.PortLast = "play.example.com", 20000, 20010
	}
	device, err := w.db.CreateDevice(t.Context(), created)
	if err != nil {
		t.Fatal(err)
	}
	w.connect(t, device.ID)
	return device
}

// pending starts an enrollment.
func (w *world) pending(t *testing.T) types.Enrollment {
	t.Helper()
	return decode[types.Enrollment](t, w.session(t, w.owner).send(t, "POST", "/api/tunnel/device/start", `{"name":"home"}`), 200)
}

// newTarget returns a target of the user owner or of the organisation.
func (w *world) newTarget(ofOrganisation bool) *target {
	w.advance(time.Second) // Lists have the newest first.
	to := &target{owner: &w.owner.ID, devices: map[string]db.Device{}}
	if ofOrganisation {
		to.owner, to.organisation = nil, &w.organisation
	}
	return to
}
