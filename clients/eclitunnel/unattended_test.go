package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

const sampleKey = "etk_0123456789abcdefghijklmnopqrstuvwxyzABC"

// createDevice serves the operation as the panel does: a repetition with the same
// Idempotency-Key gets the first answer.
func (p *panel) createDevice(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.onCreate) > 0 {
		a := p.onCreate[0]
		p.onCreate = p.onCreate[1:]
		if a.status == 0 {
			panic(http.ErrAbortHandler) // Unreachable.
		}
		reply(w, a)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+sampleKey {
		reply(w, refusal(401, types.CodeUnauthorized))
		return
	}
	var create types.DeviceCreate
	_ = json.NewDecoder(r.Body).Decode(&create)
	if p.created == nil {
		p.created = map[string]string{}
	}
	p.created[r.Header.Get("Idempotency-Key")] = create.Name
	if p.loseCreated {
		p.loseCreated = false
		panic(http.ErrAbortHandler)
	}
	reply(w, answer{201, types.DeviceCreated{Token: p.token, Device: types.Device{ID: p.device, Name: create.Name, Kind: types.DeviceKindClient, Approved: true}}})
}

// unattendedAt returns a machine that is not enrolled, and has a key of the panel p.
func unattendedAt(t *testing.T, p *panel) *machine {
	t.Helper()
	m := newMachine(t)
	m.env["ECLITUNNEL_PANEL"], m.env["ECLITUNNEL_ENROLL_KEY"], m.env["ECLITUNNEL_NAME"] = p.URL, sampleKey+"\n", "game-7"
	return m
}

func TestRun_WithAKeyMakesOneDevice(t *testing.T) {
	p := newPanel(t)
	m := unattendedAt(t, p)
	m.background("connected to", "run").stop().want(t, 0, "enrolled as game-7 ("+p.device.String()+")")
	if c := m.config(); c.Token != p.token || c.PanelURL != p.URL || c.DeviceID != p.device || c.Name != "game-7" {
		t.Errorf("config %+v", c)
	}
	m.background("connected to", "run").stop().want(t, 0)
	delete(m.env, "ECLITUNNEL_ENROLL_KEY") // Nor is it needed any more.
	m.background("connected to", "run").stop().want(t, 0)
	if len(p.created) != 1 {
		t.Errorf("created %v", p.created)
	}
	if _, err := os.Stat(m.env["ECLITUNNEL_CONFIG"] + pendingSuffix); err == nil {
		t.Error("the attempt was not removed")
	}
}

func TestRun_WithAKeyWaitsForThePanelAndMakesOneDeviceOfALostAnswer(t *testing.T) {
	p := newPanel(t)
	m := unattendedAt(t, p)
	m.env["ECLITUNNEL_ENROLL_KEY_FILE"] = m.env["ECLITUNNEL_CONFIG"] + ".key"
	if err := os.WriteFile(m.env["ECLITUNNEL_ENROLL_KEY_FILE"], []byte(sampleKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	delete(m.env, "ECLITUNNEL_ENROLL_KEY")
	for range 5 { // Each attempt is made of four.
		p.onCreate = append(p.onCreate, answer{})
	}
	p.onCreate = append(p.onCreate, refusal(503, types.CodeUnavailable))
	p.loseCreated = true
	o := m.background("connected to", "run").stop()
	o.want(t, 0, "still trying")
	if len(p.created) != 1 || strings.Count(o.stderr, "still trying") != 1 {
		t.Errorf("created %v\n%s", p.created, o.stderr)
	}
}

// TestRun_WithAKeyGoesOnAfterACrash leaves behind what a crash does before an enrollment
// is stored.
func TestRun_WithAKeyGoesOnAfterACrash(t *testing.T) {
	p := newPanel(t)
	m := unattendedAt(t, p)
	begun, err := (&unattended{Name: "game-7"}).pending(m.env["ECLITUNNEL_CONFIG"] + pendingSuffix)
	if err != nil {
		t.Fatal(err)
	}
	m.env["ECLITUNNEL_NAME"] = "another-name" // Of the container that goes on.
	m.background("connected to", "run").stop().want(t, 0)
	if len(p.created) != 1 || p.created[begun.IdempotencyKey] != "game-7" {
		t.Errorf("created %v, want %+v", p.created, begun)
	}
}

func TestRun_WithAKeySaysWhyItIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*panel, *machine)
		code   int
		words  string
	}{
		"not a key":       {func(_ *panel, m *machine) { m.env["ECLITUNNEL_ENROLL_KEY"] = "secret" }, 2, "begins with etk_"},
		"no panel":        {func(_ *panel, m *machine) { delete(m.env, "ECLITUNNEL_PANEL") }, 2, "ECLITUNNEL_PANEL"},
		"an unknown key":  {func(_ *panel, m *machine) { m.env["ECLITUNNEL_ENROLL_KEY"] = "etk_unknown" }, 5, "API key in ECLITUNNEL_ENROLL_KEY"},
		"without scope":   {func(p *panel, _ *machine) { p.onCreate = []answer{refusal(403, types.CodeForbidden)} }, 5, "scope enrollment"},
		"over quota":      {func(p *panel, _ *machine) { p.onCreate = []answer{refusal(409, types.CodeQuotaExceeded)} }, 9, "quota_exceeded"},
		"an invalid name": {func(p *panel, _ *machine) { p.onCreate = []answer{refusal(400, types.CodeInvalidRequest)} }, 2, "invalid_request"},
		"nowhere to store": {func(_ *panel, m *machine) {
			m.env["ECLITUNNEL_CONFIG"] = "/proc/none/config.json"
		}, 1, "config"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPanel(t)
			m := unattendedAt(t, p)
			c.change(p, m)
			o := m.run("run")
			o.want(t, c.code, c.words)
			if strings.Contains(o.stderr, "regenerate-token") || strings.Contains(o.stdout+o.stderr, sampleKey) {
				t.Errorf("it says %s", o.stderr)
			}
			if _, err := agent.LoadConfig(m.env["ECLITUNNEL_CONFIG"]); err == nil || len(p.created) > 0 {
				t.Errorf("created %v", p.created)
			}
		})
	}
}

// TestRun_PrefersATokenToAKey: an orchestrator that passes both has made the device.
func TestRun_PrefersATokenToAKey(t *testing.T) {
	p := newPanel(t)
	m := unattendedAt(t, p)
	m.env["ECLITUNNEL_TOKEN"] = p.token
	m.background("connected to", "run").stop().want(t, 0)
	if len(p.created) != 0 {
		t.Errorf("created %v", p.created)
	}
}
