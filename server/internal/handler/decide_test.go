package handler_test

import (
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
)

const (
	startPath   = "/api/tunnel/device/start"
	approvePath = "/api/tunnel/device/approve"
	denyPath    = "/api/tunnel/device/deny"
	pendingPath = "/api/tunnel/device/pending?userCode="
	pollPath    = "/api/tunnel/device/poll?deviceCode="
	devicesPath = "/api/tunnel/devices"
)

func (c caller) start(t *testing.T, body string, headers ...string) types.Enrollment {
	t.Helper()
	return decode[types.Enrollment](t, c.send(t, "POST", startPath, body, headers...), 200)
}

func code(userCode string) map[string]any { return map[string]any{"userCode": userCode} }

// poll polls once the interval has passed.
func (p *panel) poll(t *testing.T, deviceCode string) answer {
	t.Helper()
	p.advance(enroll.Interval)
	return p.anonymous().send(t, "GET", pollPath+deviceCode, nil)
}

// ownersApprove changes the setting.
func ownersApprove(t *testing.T, admin caller, on bool) {
	t.Helper()
	patch := map[string]any{"enrollment": map[string]bool{"ownersApprove": on}}
	if got := decode[types.Settings](t, admin.send(t, "PATCH", "/api/admin/settings", patch), 200); got.Enrollment.OwnersApprove != on {
		t.Fatalf("the setting is %+v", got.Enrollment)
	}
}

func TestPending_ShowsWhatAsks(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	guild := dbtest.Organisation(t, p.db, "guild")
	dbtest.Member(t, p.db, guild, ada.user.ID, "owner")
	const home = "2001:db8:7:7::1"
	show := func(code, address string) types.PendingEnrollment {
		t.Helper()
		return decode[types.PendingEnrollment](t, admin.send(t, "GET", pendingPath+url.QueryEscape(code), nil, "X-Forwarded-For", address), 200)
	}

	unowned := p.anonymous().start(t, `{"name":"home","platform":"linux/arm64","agentVersion":"0.3.0"}`, "X-Forwarded-For", home)
	got := show(" "+unowned.UserCode[:4]+unowned.UserCode[5:], "2001:db8:7:7::beef")
	if got.Name != "home" || got.Kind != types.DeviceKindClient || got.Platform.MustGet() != "linux/arm64" || got.AgentVersion.MustGet() != "0.3.0" ||
		got.Address.MustGet() != home || !got.SameNetwork || got.UserCode != unowned.UserCode ||
		!got.CreatedAt.Equal(p.Now()) || !got.ExpiresAt.Equal(unowned.ExpiresAt) || !got.OwnerID.IsNull() || !got.OrganisationID.IsNull() {
		t.Errorf("an anonymous enrollment is shown as %+v", got)
	}
	if show(unowned.UserCode, "2001:db8:7:8::1").SameNetwork {
		t.Error("another /64 is the same network")
	}
	got = show(ada.start(t, `{"name":"rig"}`).UserCode, home)
	if got.OwnerID.MustGet() != ada.user.ID || got.OwnerEmail.MustGet() != "ada@example.com" || !got.Platform.IsNull() || got.SameNetwork {
		t.Errorf("a user's is shown as %+v", got)
	}
	got = show(ada.start(t, fmt.Sprintf(`{"name":"rig","organisationId":%d}`, guild)).UserCode, home)
	if got.OrganisationID.MustGet() != guild || got.OrganisationName.MustGet() != "guild" || !got.OwnerEmail.IsNull() {
		t.Errorf("an organisation's is shown as %+v", got)
	}
	if got = show(admin.start(t, `{"name":"edge","kind":"server"}`).UserCode, home); got.Kind != types.DeviceKindServer {
		t.Errorf("a tunnel server is shown as %+v", got)
	}
	for _, field := range []string{"platform", "agentVersion"} {
		wantField(t, p.anonymous().send(t, "POST", startPath, map[string]string{"name": "home", field: "linux\nApprove me"}), field)
	}

	// Where it asked from is not kept once it is approved.
	decode[types.DeviceApproved](t, admin.send(t, "POST", approvePath, code(unowned.UserCode)), 200)
	wantError(t, admin.send(t, "GET", pendingPath+unowned.UserCode, nil), 409, types.CodeAlreadyApproved)
	var kept int
	row := dbtest.SQL(t, p.db).QueryRowContext(t.Context(),
		`SELECT count(*) FROM devices WHERE approved_at IS NOT NULL AND started_address IS NOT NULL`)
	if err := row.Scan(&kept); err != nil || kept != 0 {
		t.Errorf("%d addresses are kept, %v", kept, err)
	}
}

func TestDeny_EndsAnEnrollmentAtOnce(t *testing.T) {
	p := newPanel(t)
	other := newReplica(t, p.db, p.Now())
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	guild := dbtest.Organisation(t, p.db, "guild")
	for _, started := range map[string]types.Enrollment{
		"without an owner":   p.anonymous().start(t, `{"name":"home"}`),
		"of a user":          ada.start(t, `{"name":"home"}`),
		"of an organisation": admin.start(t, fmt.Sprintf(`{"name":"home","organisationId":%d}`, guild)),
		"of a tunnel server": admin.start(t, `{"name":"edge","kind":"server"}`),
	} {
		decode[types.EnrollmentStatus](t, p.poll(t, started.DeviceCode), 200)
		decode[types.Success](t, admin.send(t, "POST", denyPath, code(started.UserCode)), 200)
		for _, replica := range []*panel{p, other} {
			wantError(t, replica.poll(t, started.DeviceCode), 403, types.CodeEnrollmentDenied)
		}
		for _, a := range []answer{
			admin.send(t, "GET", pendingPath+started.UserCode, nil),
			admin.send(t, "POST", approvePath, code(started.UserCode)),
			admin.send(t, "POST", denyPath, code(started.UserCode)),
		} {
			wantError(t, a, 404, types.CodeNotFound)
		}
	}
	if left := decode[[]types.Device](t, admin.send(t, "GET", devicesPath, nil), 200); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}

	approved, late := ada.start(t, `{"name":"home"}`), ada.start(t, `{"name":"home"}`)
	decode[types.DeviceApproved](t, admin.send(t, "POST", approvePath, code(approved.UserCode)), 200)
	wantError(t, admin.send(t, "POST", denyPath, code(approved.UserCode)), 409, types.CodeAlreadyApproved)
	p.advance(enroll.Lifetime)
	wantError(t, admin.send(t, "POST", denyPath, code(late.UserCode)), 410, types.CodeEnrollmentExpired)
	wantError(t, p.poll(t, late.DeviceCode), 410, types.CodeEnrollmentExpired)
}

func TestOwnersApprove_DevicesBecomeTheirs(t *testing.T) {
	p := newPanel(t)
	admin, ada, eve := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user"), p.user(t, "eve@example.com", "user")
	guild := dbtest.Organisation(t, p.db, "guild")
	dbtest.Member(t, p.db, guild, ada.user.ID, "admin")
	dbtest.Member(t, p.db, guild, eve.user.ID, "member")
	body := func(userCode, field string, id int64) map[string]any {
		return map[string]any{"userCode": userCode, field: id}
	}
	for range 2 { // The setting is off at first.
		wantError(t, ada.send(t, "POST", approvePath, code(ada.start(t, `{"name":"home"}`).UserCode)), 403, types.CodeForbidden)
		ownersApprove(t, admin, true)
		ownersApprove(t, admin, false)
	}
	ownersApprove(t, admin, true)

	anonymous := func() string { return p.anonymous().start(t, `{"name":"home"}`).UserCode }
	ofGuild := fmt.Sprintf(`{"name":"home","organisationId":%d}`, guild)
	for name, test := range map[string]struct {
		body         map[string]any
		organisation bool
	}{
		"their own":                    {code(ada.start(t, `{"name":"home"}`).UserCode), false},
		"nobody's":                     {code(anonymous()), false},
		"nobody's, by their id":        {body(anonymous(), "ownerId", ada.user.ID), false},
		"nobody's, for the guild":      {body(anonymous(), "organisationId", guild), true},
		"the guild's":                  {code(ada.start(t, ofGuild).UserCode), true},
		"their own, for the guild":     {body(ada.start(t, `{"name":"home"}`).UserCode, "organisationId", guild), true},
		"another admin's, the guild's": {code(admin.start(t, ofGuild).UserCode), true},
	} {
		device := decode[types.DeviceApproved](t, ada.send(t, "POST", approvePath, test.body), 200).Device
		if owner, _ := device.OwnerID.Get(); (owner == ada.user.ID) == test.organisation {
			t.Errorf("%s belongs to the user %d", name, owner)
		}
		if organisation, _ := device.OrganisationID.Get(); (organisation == guild) != test.organisation {
			t.Errorf("%s belongs to the organisation %d", name, organisation)
		}
	}
	wantError(t, ada.send(t, "POST", approvePath, body(anonymous(), "ownerId", eve.user.ID)), 403, types.CodeForbidden)
	wantError(t, ada.send(t, "POST", approvePath, body(anonymous(), "ownerId", 999)), 403, types.CodeForbidden) // It tells nothing of who exists.
	wantError(t, eve.send(t, "POST", approvePath, body(anonymous(), "organisationId", guild)), 403, types.CodeForbidden)
	wantError(t, eve.send(t, "POST", denyPath, code(ada.start(t, `{"name":"home"}`).UserCode)), 404, types.CodeNotFound)
	approved := ada.start(t, `{"name":"home"}`).UserCode
	decode[types.DeviceApproved](t, ada.send(t, "POST", approvePath, code(approved)), 200)
	wantError(t, eve.send(t, "POST", approvePath, code(approved)), 404, types.CodeNotFound) // Nor of what is approved,
	p.advance(enroll.Lifetime)
	late := ada.start(t, `{"name":"home"}`).UserCode
	p.advance(enroll.Lifetime)
	wantError(t, eve.send(t, "GET", pendingPath+late, nil), 404, types.CodeNotFound) // or has expired.
	wantError(t, ada.send(t, "GET", pendingPath+late, nil), 410, types.CodeEnrollmentExpired)
}

func TestOwnersApprove_OneOfManyClaimsADevice(t *testing.T) {
	p := newPanel(t)
	ownersApprove(t, p.user(t, "root@example.com", "admin"), true)
	claimed := p.anonymous().start(t, `{"name":"home"}`)
	answers := make([]answer, 8)
	var claims sync.WaitGroup
	for i := range answers {
		user := p.user(t, fmt.Sprintf("user%d@example.com", i), "user")
		claims.Go(func() { answers[i] = user.send(t, "POST", approvePath, code(claimed.UserCode)) })
	}
	claims.Wait()
	won := 0
	for _, a := range answers {
		if a.status == http.StatusOK {
			won++
		} else {
			wantError(t, a, 404, types.CodeNotFound) // It is another's.
		}
	}
	if won != 1 {
		t.Errorf("%d users own it", won)
	}
}

func TestGuesses_CountWhateverIsAskedWithThem(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	ownersApprove(t, admin, true)
	requests := map[string]func(c caller, userCode string) answer{
		"pending": func(c caller, userCode string) answer { return c.send(t, "GET", pendingPath+userCode, nil) },
		"approve": func(c caller, userCode string) answer { return c.send(t, "POST", approvePath, code(userCode)) },
		"deny":    func(c caller, userCode string) answer { return c.send(t, "POST", denyPath, code(userCode)) },
	}
	for name, guess := range requests {
		p.advance(2 * enroll.Lifetime) // The windows end.
		for range 9 {
			wantError(t, guess(ada, "CDFG-2345"), 404, types.CodeNotFound)
		}
		// What is theirs costs no guess, and gives none back.
		for _, own := range requests {
			if a := own(ada, ada.start(t, `{"name":"home"}`).UserCode); a.status != http.StatusOK {
				t.Fatalf("after guesses by %s: %d %s", name, a.status, a.body)
			}
		}
		wantError(t, guess(ada, "CDFG-2345"), 404, types.CodeNotFound)
		for other, request := range requests {
			if a := request(ada, ada.start(t, `{"name":"home"}`).UserCode); a.status != http.StatusTooManyRequests {
				t.Errorf("after guesses by %s, %s answers %d", name, other, a.status)
			}
			// Nor from their address with another account.
			wantError(t, request(admin, "CDFG-2345"), 429, types.CodeRateLimited)
		}
	}
}

func TestCreateDevice_AnswersATokenThatWorks(t *testing.T) {
	p := newPanel(t)
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	guild := dbtest.Organisation(t, p.db, "guild")
	dbtest.Member(t, p.db, guild, ada.user.ID, "owner")
	wantError(t, ada.send(t, "POST", devicesPath, `{"name":"home"}`), 403, types.CodeForbidden)
	ownersApprove(t, admin, true)
	for name, test := range map[string]struct {
		caller              caller
		body                string
		owner, organisation int64
	}{
		"one's own":          {ada, `{"name":" home "}`, ada.user.ID, 0},
		"an organisation's":  {ada, fmt.Sprintf(`{"name":"home","kind":"client","organisationId":%d}`, guild), 0, guild},
		"an admin's":         {admin, `{"name":"home"}`, admin.user.ID, 0},
		"another user's":     {admin, fmt.Sprintf(`{"name":"home","ownerId":%d}`, ada.user.ID), ada.user.ID, 0},
		"a tunnel server":    {admin, `{"name":"home","kind":"server","server":{"publicHost":"192.0.2.1","region":"eu"}}`, 0, 0},
		"one with its owner": {admin, fmt.Sprintf(`{"name":"home","kind":"server","ownerId":%d,"server":{"publicHost":"192.0.2.1"}}`, ada.user.ID), ada.user.ID, 0},
	} {
		created := decode[types.DeviceCreated](t, test.caller.send(t, "POST", devicesPath, test.body), 201)
		owner, _ := created.Device.OwnerID.Get()
		organisation, _ := created.Device.OrganisationID.Get()
		if owner != test.owner || organisation != test.organisation || !created.Device.Approved || created.Device.Name != "home" {
			t.Errorf("%s: %+v", name, created.Device)
		}
		device := caller{panel: p, token: created.Token}
		if got := decode[types.Device](t, device.send(t, "GET", devicesPath+"/"+created.Device.ID.String(), nil), 200); got.ID != created.Device.ID {
			t.Errorf("%s: its token is of %v", name, got.ID)
		}
	}
	for field, body := range map[string]string{
		"server.publicHost": `{"name":"edge","kind":"server"}`,
		"server":            `{"name":"home","server":{"publicHost":"192.0.2.1"}}`,
		"name":              `{"name":" "}`,
		"ownerId":           `{"name":"home","ownerId":999}`,
		"organisationId":    `{"name":"home","organisationId":999}`,
	} {
		wantField(t, admin.send(t, "POST", devicesPath, body), field)
	}
	wantError(t, ada.send(t, "POST", devicesPath, `{"name":"home","organisationId":999}`), 404, types.CodeNotFound)
}

// Who has the device code of an enrollment gets no token once somebody has asked for one
// in another way, or the device is gone.
func TestPoll_ADeviceCodeEndsWithWhatItWasFor(t *testing.T) {
	p := newPanel(t)
	other := newReplica(t, p.db, p.Now())
	admin, ada := p.user(t, "root@example.com", "admin"), p.user(t, "ada@example.com", "user")
	heir := p.user(t, "heir@example.com", "user")
	approved := func() (started types.Enrollment, path string) {
		t.Helper()
		started = ada.start(t, `{"name":"home"}`)
		device := decode[types.DeviceApproved](t, admin.send(t, "POST", approvePath, code(started.UserCode)), 200).Device
		return started, devicesPath + "/" + device.ID.String()
	}
	token := func(a answer) string {
		t.Helper()
		status := decode[types.EnrollmentStatus](t, a, 200)
		if !status.Approved {
			t.Error("it is not approved any more")
		}
		if status.Token == nil {
			return ""
		}
		return *status.Token
	}
	regenerate := func(path string) caller {
		t.Helper()
		return caller{panel: p, token: decode[types.TokenRegenerated](t, ada.send(t, "POST", path+"/regenerate-token", nil), 200).Token}
	}
	valid := func(name string, c caller, path string) {
		t.Helper()
		if a := c.send(t, "GET", path, nil); a.status != http.StatusOK {
			t.Errorf("%s: the token answers %d", name, a.status)
		}
	}

	started, path := approved()
	fresh := regenerate(path)
	for _, replica := range []*panel{p, other, p} {
		p.advance(enroll.Interval)
		other.advance(p.Now().Sub(other.Now()))
		if got := token(replica.anonymous().send(t, "GET", pollPath+started.DeviceCode, nil)); got != "" {
			t.Error("regenerated before the first poll: a poll gets a token")
		}
	}
	valid("regenerated before the first poll", fresh, path)
	decode[types.Success](t, ada.send(t, "DELETE", path+"/delete", nil), 200)
	wantError(t, p.poll(t, started.DeviceCode), 403, types.CodeEnrollmentDenied)

	started, path = approved()
	if token(p.poll(t, started.DeviceCode)) == "" {
		t.Error("the first poll gets no token")
	}
	regenerate(path)
	fresh = regenerate(path)
	if token(p.poll(t, started.DeviceCode)) != "" {
		t.Error("regenerated after a poll: a poll gets a token")
	}
	valid("regenerated after a poll", fresh, path)

	for range 10 { // Whichever comes first, what was regenerated is valid.
		started, path = approved()
		p.advance(enroll.Interval)
		var poll sync.WaitGroup
		poll.Go(func() { p.anonymous().send(t, "GET", pollPath+started.DeviceCode, nil) })
		fresh = regenerate(path)
		poll.Wait()
		valid("regenerated during a poll", fresh, path)
	}

	// A device that moves keeps its token, and so its code.
	started, path = approved()
	decode[types.Success](t, admin.send(t, "DELETE", fmt.Sprintf("%s?devices=move&newOwnerId=%d", userPath(ada.user.ID), heir.user.ID), nil), 200)
	moved := caller{panel: p, token: token(p.poll(t, started.DeviceCode))}
	if device := decode[types.Device](t, moved.send(t, "GET", path, nil), 200); device.OwnerID.MustGet() != heir.user.ID {
		t.Errorf("it belongs to %v", device.OwnerID)
	}
	decode[types.Success](t, heir.send(t, "DELETE", path+"/delete", nil), 200)
	wantError(t, p.poll(t, started.DeviceCode), 403, types.CodeEnrollmentDenied)
}

// decided makes a request while owners may approve, or not, with no guesses counted.
func decided(ownersApprove bool, method, path, body string) policyRequest {
	return func(w *world, t *testing.T, c caller, to *target) auth.Answer {
		t.Helper()
		w.exec(t, `UPDATE settings SET owners_approve = $1`, ownersApprove)
		w.exec(t, `DELETE FROM rate_limits`)
		return answered(method, path, body)(w, t, c, to)
	}
}

// waiting makes a pending enrollment of the target's owner, and returns its user code.
func (w *world) waiting(t *testing.T, kind string, to *target) string {
	t.Helper()
	id := uuid.New() // Its first bytes are random.
	code := []byte("CDFG-2345")
	for i := range 4 {
		code[i] = "CDFGHJKMNPQRTVWX"[id[i]%16]
		code[5+i] = "23456789"[id[i]/16%8]
	}
	if _, _, err := w.db.CreatePending(t.Context(), db.NewDevice{
		Name: "home", Kind: kind, OwnerID: to.owner, OrganisationID: to.organisation,
		UserCode: string(code), CodeHash: id[:], CreatedAt: w.Now(), ExpiresAt: w.Now().Add(time.Hour),
	}, db.PendingLimits{}); err != nil {
		t.Fatal(err)
	}
	return string(code)
}
