package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// soon is a cache time after which tests wait for what follows.
const soon = 100 * time.Millisecond

func TestEcliPanel_MakesUsersAndFollowsTheirRolesAndOrganisations(t *testing.T) {
	e := newEcliPanel(t)
	ann, bob := bearer("ann"), bearer("bob")
	e.users["Bearer "+ann] = personOf(17, "user", org(7, "Guild", "owner"))
	e.users["Bearer "+bob] = personOf(18, "staff", org(8, "Others", "owner"), org(7, "Guild", "member"))
	p := e.asking(soon)
	a := visit(t, p, p.URL, cookie("token", ann))
	for name, headers := range map[string][]string{"cookie": nil, "bearer": {"Authorization", "Bearer " + ann}} {
		if got := a.me(headers...); got != "user17@example.com user" {
			t.Errorf("by %s: %s", name, got)
		}
	}
	b := visit(t, p, p.URL, cookie("token", bob))
	if got := b.me(); got != "user18@example.com user" {
		t.Errorf("staff is %s", got)
	}

	// The organisation's owner sees its device, a member of it and strangers do not.
	database := dbtest.Open(t, p.DatabaseURL())
	var guild int64
	row := dbtest.SQL(t, database).QueryRowContext(t.Context(), `SELECT id FROM organisations WHERE provider = 'eclipanel' AND external_id = '7'`)
	if err := row.Scan(&guild); err != nil {
		t.Fatal(err)
	}
	start := fmt.Sprintf(`{"name":"machine","organisationId":%d}`, guild)
	if status, text := b.send(http.MethodPost, "/api/tunnel/device/start", start); status != http.StatusForbidden {
		t.Errorf("a member starts a device of the organisation: %d %s", status, text)
	}
	if status, text := a.send(http.MethodPost, "/api/tunnel/device/start", start); status != http.StatusOK {
		t.Fatalf("start: %d %s", status, text)
	}
	devices := func(v *visitor) int {
		status, text := v.send(http.MethodGet, "/api/tunnel/devices", "")
		var list []types.Device
		if err := json.Unmarshal([]byte(text), &list); err != nil || status != http.StatusOK {
			t.Fatalf("devices: %d %v %s", status, err, text)
		}
		return len(list)
	}
	if mine, theirs := devices(a), devices(b); mine != 1 || theirs != 1 {
		t.Errorf("the owner sees %d devices, the member %d", mine, theirs)
	}
	e.change(func() { e.users["Bearer "+bob]["orgs"] = []map[string]any{org(7, "Guild", "admin")} })
	await.Until(t, "the member to be an admin of it", func() bool { return devices(b) == 1 })
	e.change(func() { e.users["Bearer "+bob]["orgs"] = []map[string]any{} })
	await.Until(t, "the admin to have left", func() bool { return devices(b) == 0 })

	e.change(func() { e.users["Bearer "+ann]["role"] = "rootAdmin" })
	a.becomes("user17@example.com admin")
	e.change(func() { e.users["Bearer "+ann]["role"] = "user" })
	a.becomes("user17@example.com user")
	e.change(func() { delete(e.users, "Bearer "+ann) })
	a.becomes("401 unauthorized")
}

func TestEcliPanel_RefusesWhomItShould(t *testing.T) {
	e := newEcliPanel(t)
	unverified := personOf(20, "*")
	unverified["kycRequired"], unverified["kycVerified"] = true, false
	impostor := personOf(21, "user")
	impostor["email"] = strings.ToUpper(servertest.AdminEmail)
	e.users["Bearer unverified"], e.users["Bearer impostor"] = unverified, impostor
	e.users["Bearer suspended"] = personOf(22, "*")
	p := e.asking(time.Minute)
	v := visit(t, p, p.URL)
	if got := v.me("Authorization", "Bearer suspended"); got != "user22@example.com admin" {
		t.Fatal(got)
	}
	database := dbtest.Open(t, p.DatabaseURL())
	user, err := database.UserByEmail(t.Context(), "user22@example.com")
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	if _, err := database.UpdateUser(t.Context(), user.ID, db.UserPatch{Suspended: &yes}); err != nil {
		t.Fatal(err)
	}
	before := e.requests()
	for range 3 {
		for credential, want := range map[string]string{
			"unverified": "403 kyc_required", "impostor": "403 email_taken", "suspended": "403 forbidden",
			"unknown": "401 unauthorized", strings.Repeat("x", 20_000): "401 unauthorized",
		} {
			if got := v.me("Authorization", "Bearer "+credential); got != want {
				t.Errorf("%.20s: %s, want %s", credential, got, want)
			}
		}
	}
	if asked := e.requests() - before; asked != 3 {
		t.Errorf("EcliPanel was asked %d times about three who were refused, and one it knows", asked)
	}

	// What is this panel's own is nobody else's business.
	before = e.requests()
	own := p.Login()
	for _, credential := range []string{own, own + "x", p.Enroll("machine").Token, "etk_unknown"} {
		v.me("Authorization", "Bearer "+credential)
		visit(t, p, p.URL, cookie("session", credential), cookie("token", credential)).me()
	}
	if asked := e.requests() - before; asked != 0 {
		t.Errorf("EcliPanel was asked %d times about credentials of this panel", asked)
	}
	both := visit(t, p, p.URL, cookie("session", own+"x"), cookie("token", "unknown"))
	if got := both.me(); got != "401 unauthorized" {
		t.Errorf("with two dead cookies: %s", got)
	}
}

func TestEcliPanel_IsAskedOnceAboutACredential(t *testing.T) {
	e := newEcliPanel(t)
	arrived, release := make(chan struct{}, 200), make(chan struct{})
	e.session = func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"user": personOf(17, "user")})
	}
	p := e.asking(time.Minute)
	v := visit(t, p, p.URL, cookie("token", bearer("ann")))
	leaving, leave := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	left := make(chan struct{})
	wait.Go(func() {
		defer close(left)
		if _, _, err := v.try(leaving, http.MethodGet, "/api/auth/session", ""); err == nil {
			t.Error("who has left got an answer")
		}
	})
	await.Receive(t, arrived, "the request to EcliPanel")
	for range 100 {
		wait.Go(func() {
			if status, text, err := v.try(t.Context(), http.MethodGet, "/api/auth/session", ""); err != nil || status != http.StatusOK {
				t.Errorf("%d %v %s", status, err, text)
			}
		})
	}
	leave()
	<-left
	close(release)
	wait.Wait()
	if asked := e.requests(); asked != 1 {
		t.Errorf("EcliPanel was asked %d times about one credential", asked)
	}
}

func TestEcliPanel_AwayIsNoRefusal(t *testing.T) {
	e := newEcliPanel(t)
	e.users["Bearer known"] = personOf(17, "user")
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	t.Cleanup(other.Close)
	answer := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Location", other.URL)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	valid := `{"user":{"id":17,"email":"user17@example.com","role":"user","orgs":[]}}`
	p := e.asking(time.Minute)
	known := visit(t, p, p.URL, cookie("token", "known"))
	if got := known.me(); got != "user17@example.com user" {
		t.Fatal(got)
	}
	n := 0
	for name, failure := range map[string]http.HandlerFunc{
		"error":           answer(500, "application/json", valid),
		"overload":        answer(429, "application/json", valid),
		"other path":      answer(404, "application/json", valid),
		"redirect":        answer(302, "application/json", valid),
		"page":            answer(200, "text/html", valid),
		"no type":         answer(200, "", valid),
		"no JSON":         answer(200, "application/json", valid[1:]),
		"two answers":     answer(200, "application/json", valid+valid),
		"nobody":          answer(200, "application/json", `{"user":null}`),
		"no id":           answer(200, "application/json", `{"user":{"id":null,"role":"*"}}`),
		"half an id":      answer(200, "application/json", `{"user":{"id":1.5,"role":"*"}}`),
		"control in id":   answer(200, "application/json", `{"user":{"id":"1\u0000","role":"*"}}`),
		"other types":     answer(200, "application/json", `{"user":{"id":1,"role":["*"]}}`),
		"endless":         answer(200, "application/json", strings.Repeat(" ", 1<<20)+valid),
		"broken off":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"firewall":        answer(403, "text/html; charset=utf-8", "<html>Access denied</html>"),
		"proxy's login":   answer(401, "text/html", valid),
		"no type at all":  answer(401, "", `{"error":"Unauthorized"}`),
		"page as JSON":    answer(403, "application/json", "<html>Access denied</html>"),
		"half a refusal":  answer(401, "application/json", `{"error":"Unauthor`),
		"other refusal":   answer(403, "application/json", `{"message":"Access denied"}`),
		"empty refusal":   answer(401, "application/json", ""),
		"no organisation": answer(200, "application/json", `{"user":{"id":1,"orgs":[{"name":"x","orgRole":"owner"}]}}`),
	} {
		e.change(func() { e.session = failure })
		n++
		if got := known.me("Authorization", fmt.Sprint("Bearer new", n)); got != "503 unavailable" {
			t.Errorf("%s: who is new gets %s", name, got)
		}
		if got := known.me(); got != "user17@example.com user" {
			t.Errorf("%s: who is known gets %s", name, got)
		}
	}

	for status, refusal := range map[int]string{401: `{"error":"Invalid session"}`, 403: `{"error":"Account suspended","code":7}`} {
		e.change(func() { e.session = answer(status, "application/json; charset=utf-8", refusal) })
		if got := known.me("Authorization", fmt.Sprint("Bearer refused", status)); got != "401 unauthorized" {
			t.Errorf("refused with %d: %s", status, got)
		}
	}

	e.change(func() { e.session = nil })
	hurried := e.asking(soon)
	known = visit(t, hurried, hurried.URL, cookie("token", "known"))
	known.becomes("user17@example.com user")
	e.CloseClientConnections()
	for _, status := range []int{502, 403, 401} {
		e.change(func() { e.session = answer(status, "text/html", "") })
		known.becomes("503 unavailable")
		e.change(func() { e.session = nil })
		known.becomes("user17@example.com user")
	}
	e.change(func() { e.session = answer(403, "text/html", "") })
	known.becomes("503 unavailable")
	e.change(func() { e.session = nil })
	known.becomes("user17@example.com user")
	e.Close()
	known.becomes("503 unavailable")
}

func TestEcliPanel_WritesByItsCookieComeFromItsPagesOnly(t *testing.T) {
	e := newEcliPanel(t)
	e.users["Bearer known"] = personOf(17, "user")
	p := e.asking(time.Minute, func(o *server.Options) {
		o.EcliPanel.Origins = []string{"https://Panel.example.org:443/", " https://panel.example.net:8443"}
		o.AllowedOrigins = []string{"https://app.example.com"}
	})
	public, transport := p.URL, newTransport(t)
	p.URL = proxy(t, p)
	for name, test := range map[string]struct {
		headers []string
		status  int
	}{
		"EcliPanel's page":       {[]string{"Origin", "https://panel.example.org"}, 200},
		"another of its pages":   {[]string{"Origin", "https://panel.example.net:8443"}, 200},
		"an allowed page":        {[]string{"Origin", "https://app.example.com"}, 200},
		"this panel's page":      {[]string{"Origin", public}, 200},
		"no browser":             {nil, 200},
		"somebody's page":        {[]string{"Origin", "https://evil.example"}, 401},
		"a subdomain's page":     {[]string{"Origin", "https://x.panel.example.org"}, 401},
		"EcliPanel without TLS":  {[]string{"Origin", "http://panel.example.org"}, 401},
		"no origin":              {[]string{"Origin", "null"}, 401},
		"a bearer, from outside": {[]string{"Origin", "https://evil.example", "Authorization", "Bearer known"}, 200},
	} {
		// A dead session of this panel's own comes with it and changes nothing.
		v := visit(t, p, p.URL, cookie("token", "known"), cookie("session", "dead"))
		if status, text := v.send(http.MethodPost, "/api/tunnel/device/start", `{"name":"machine"}`, test.headers...); status != test.status {
			t.Errorf("%s: %d, want %d: %s", name, status, test.status, text)
		}
		if got := v.me(test.headers...); got != "user17@example.com user" {
			t.Errorf("%s reads: %s", name, got)
		}
		if len(test.headers) == 0 || test.headers[1] == public {
			continue
		}
		// The pages that may write may read as well, also without the proxy.
		want := ""
		if test.status == 200 && len(test.headers) == 2 {
			want = test.headers[1]
		}
		got := plain(t, transport, "OPTIONS", public+"/api/tunnel/devices", "Origin", test.headers[1], "Access-Control-Request-Method", "POST")
		if origin := got.Header.Get("Access-Control-Allow-Origin"); origin != want {
			t.Errorf("%s: may use the API from %q, want %q", name, origin, want)
		}
	}
}

func TestEcliPanel_WithoutLocalAccounts(t *testing.T) {
	e := newEcliPanel(t)
	e.users["Bearer boss"] = personOf(17, "*")
	p := e.asking(time.Minute, func(o *server.Options) { o.NoLocalAccounts = true })
	v := visit(t, p, p.URL)
	// The pages for people lead to EcliPanel, where they can log in.
	want := fmt.Sprintf(`{"eclipanelUrl":%q,"localAccounts":false,"providers":[]}`, e.URL+"/panel")
	if status, text := v.send(http.MethodGet, "/api/auth/providers", ""); status != http.StatusOK || strings.TrimSpace(text) != want {
		t.Errorf("the ways to log in: %d %s", status, text)
	}
	for path, body := range map[string]string{
		"/api/auth/login":             fmt.Sprintf(`{"email":%q,"password":%q}`, servertest.AdminEmail, servertest.AdminPassword),
		"/api/auth/set-password":      `{"token":"Ty3kq0s2vH1mXJt5w8nQfB6cZrL4eGdPuA9iNoKbYhM","password":"correct horse battery staple"}`,
		"/api/users/1/password-link":  "",
		"/api/users/99/password-link": "",
	} {
		status, text := v.send(http.MethodPost, path, body, "Authorization", "Bearer boss")
		if status != http.StatusForbidden || !strings.Contains(text, `"local_accounts_disabled"`) {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if status, text := v.send(http.MethodPost, "/api/auth/logout", "", "Authorization", "Bearer boss"); status != http.StatusForbidden {
		t.Errorf("logout: %d %s", status, text)
	}
	if _, err := server.New(server.Options{Database: server.Database{DataDir: t.TempDir()}, NoLocalAccounts: true}); err == nil {
		t.Error("a panel starts that nobody can log in to")
	}
}

func TestEcliPanel_SwitchesTunnels(t *testing.T) {
	e := newEcliPanel(t)
	p := e.asking(soon, func(o *server.Options) { o.EcliPanel.Features = true })
	v := visit(t, p, p.URL)
	tunnels := func(want int) {
		t.Helper()
		await.Until(t, fmt.Sprint("the status ", want), func() bool {
			status, _ := v.send(http.MethodPost, "/api/tunnel/device/start", `{}`)
			return status == want
		})
	}
	tunnels(http.StatusBadRequest) // EcliPanel does not say.
	e.change(func() { e.features = `{"featureToggles":{"billing":true,"tunnels":false}}` })
	tunnels(http.StatusServiceUnavailable)
	entries, err := dbtest.Open(t, p.DatabaseURL()).Audit(t.Context(), db.AuditFilter{}, db.Page[db.AuditPosition]{})
	if err != nil {
		t.Fatal(err)
	}
	switched := 0
	for _, entry := range entries {
		if entry.Action == "settings.update" && entry.ActorKind == db.ActorPanel {
			switched++
		}
		if entry.ActorKind == db.ActorUnknown {
			t.Errorf("nobody did %s to %s %s", entry.Action, entry.TargetKind, entry.TargetName)
		}
	}
	if switched != 1 {
		t.Errorf("the panel changed the settings %d times", switched)
	}
	e.change(func() { e.features = "" })
	p.Restart()
	v.at = p.URL
	tunnels(http.StatusServiceUnavailable)
	e.change(func() { e.features = `{"featureToggles":{"tunnels":true}}` })
	tunnels(http.StatusBadRequest)
}
