package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	samplePassword = "a good long one"
	sampleSession  = "e30.session.c2ln"
)

// login accepts one password, of anybody.
func (p *panel) login(w http.ResponseWriter, r *http.Request) {
	var request types.LoginRequest
	if json.NewDecoder(r.Body).Decode(&request) != nil || request.Password != samplePassword {
		reply(w, refusal(401, types.CodeUnauthorized))
		return
	}
	reply(w, answer{200, types.Login{Token: sampleSession, User: types.User{Email: string(request.Email)}}})
}

func (p *panel) logout(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = append(p.ended, r.Header.Get("Authorization"))
	reply(w, answer{200, types.Success{Success: true}})
}

// regenerate replaces the device's token, for the session alone.
func (p *panel) regenerate(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+sampleSession {
		reply(w, refusal(401, types.CodeUnauthorized))
		return
	}
	if r.PathValue("id") != p.device.String() {
		reply(w, refusal(404, types.CodeNotFound))
		return
	}
	if p.onRegenerate != nil {
		p.onRegenerate()
	}
	p.token = "e31" + p.token[3:] // Other characters of the same token.
	reply(w, answer{200, types.TokenRegenerated{Success: true, Token: p.token}})
}

// wantEnded fails the test unless exactly the session of the login has been ended.
func (p *panel) wantEnded(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Equal(p.ended, []string{"Bearer " + sampleSession}) {
		t.Errorf("sessions ended: %q", p.ended)
	}
}

func TestEnroll_LogsInAsAUser(t *testing.T) {
	p, m := newPanel(t), newMachine(t)
	p.polls = []answer{approved(p.token)}
	m.env["ECLITUNNEL_SESSION_TOKEN"] = "e30.another.c2ln"
	m.stdin = samplePassword + "\r\n"
	m.run("enroll", "--panel", p.URL, "--user", "you@example.com").want(t, 0)
	if p.session != "Bearer "+sampleSession {
		t.Errorf("enrolled with %q", p.session)
	}
	p.wantEnded(t)
}

// An API key stands where a session can, and is not ended.
func TestEnroll_TakesAnAPIKey(t *testing.T) {
	p, m := newPanel(t), newMachine(t)
	p.polls = []answer{approved(p.token)}
	key := "etk_" + strings.Repeat("a", 39)
	m.stdin = key + "\n"
	o := m.run("enroll", "--panel", p.URL, "--kind", "server", "--session-token-file", "-")
	o.want(t, 0, "owner of the API key")
	if p.session != "Bearer "+key || len(p.ended) > 0 {
		t.Errorf("enrolled with %q, ended %q", p.session, p.ended)
	}
	if strings.Contains(o.stdout+o.stderr, key) {
		t.Errorf("the key is printed: %s%s", o.stdout, o.stderr)
	}
}

func TestEnroll_RefusesABadLogin(t *testing.T) {
	p, m := newPanel(t), newMachine(t)
	m.stdin = "wrong\n"
	o := m.run("enroll", "--panel", p.URL, "--user", "you@example.com")
	o.want(t, 5, "does not accept this email and password")
	m.run("enroll", "--panel", p.URL, "--user", "you").want(t, 2, "email")
	m.run("enroll", "--panel", p.URL, "--user", "you@example.com", "--session-token-file", "-").want(t, 2, "exclude")
	m.stdin = ""
	m.run("enroll", "--panel", p.URL, "--user", "you@example.com").want(t, 2, "standard input")
	if p.session != "" || len(p.ended) > 0 {
		t.Errorf("enrolled with %q, ended %q", p.session, p.ended)
	}
}

// What a person is told when the token is dead brings the device back.
func TestEnroll_RenewsADeadToken(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p, "game.lan")
	old := p.token
	p.token = "e30.of another version.c2ln"
	m.run("status").want(t, 5, "eclitunnel enroll --renew --user EMAIL")
	p.token = old
	m.run("enroll", "--renew").want(t, 2, "--user")
	m.stdin = samplePassword
	m.run("enroll", "--renew", "--user", "you@example.com", "--allow", "other.lan").want(t, 0)
	p.wantEnded(t)
	if c := m.config(); c.Token == old || c.DeviceID != p.device || !slices.Equal(c.Allow, []string{"game.lan", "other.lan"}) {
		t.Errorf("stored %s with %q", c.DeviceID, c.Allow)
	}
	m.run("status").want(t, 0)
	newMachine(t).run("enroll", "--renew", "--user", "you@example.com").want(t, 6, "eclitunnel enroll --panel URL")
}

// What a person is told when the device was deleted enrolls the machine again.
func TestEnroll_ByForceStaysAtItsPanel(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	deleted := refusal(401, types.CodeDeviceDeleted)
	p.refuse = &deleted
	for _, command := range []string{"status", "list", "run"} {
		m.run(command).want(t, 5, "eclitunnel enroll --force")
	}
	p.refuse = nil
	p.polls = []answer{approved(p.token)}
	m.run("enroll", "--force").want(t, 0, p.URL)
	m.run("status").want(t, 0)
	newMachine(t).run("enroll", "--force").want(t, 2, "--panel")
}
