package main

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

func pending() answer { return answer{200, types.EnrollmentStatus{}} }

func approved(token string) answer {
	return answer{200, types.EnrollmentStatus{Approved: true, Token: &token}}
}

func TestEnroll_ShowsCodeWaitsAndStoresToken(t *testing.T) {
	p, m := newPanel(t), newMachine(t)
	p.polls = []answer{pending(), pending(), approved(p.token)}
	m.run("enroll", "--panel", p.URL+"/", "--name", "home", "--allow", "game.lan", "--allow", "10.0.0.0/8").
		want(t, 0, "CDFG-2345", "https://panel.test/activate", "eclitunnel run")
	want := agent.Config{PanelURL: p.URL, DeviceID: p.device, Name: "home", Token: p.token, Allow: []string{"game.lan", "10.0.0.0/8"}}
	if got := m.config(); !reflect.DeepEqual(got, want) {
		t.Errorf("config %+v", got)
	}
	if !slices.Equal(m.waits, []time.Duration{5 * time.Second, 5 * time.Second, 5 * time.Second}) {
		t.Errorf("waits %v", m.waits)
	}
	if p.started.Name != "home" || p.session != "" {
		t.Errorf("started %+v as %q", p.started, p.session)
	}
	m.run("enroll", "--panel", p.URL).want(t, 9, "already enrolled", "--force")
	p.polls = []answer{approved(p.token)}
	m.run("enroll", "--panel", p.URL, "--force").want(t, 0)
}

func TestEnroll_SaysWhatRunsHereToPanelsThatAsk(t *testing.T) {
	tag := strings.Repeat("tag-", 5) + "_1"
	for _, unknown := range [][]string{nil, {"tag"}, {"platform", "agentVersion", "tag"}} {
		p, m := newPanel(t), newMachine(t)
		p.polls, p.unknown = []answer{approved(p.token)}, unknown
		m.run("enroll", "--panel", p.URL, "--name", "home", "--tag", tag).want(t, 0)
		knows := func(field string) bool { return !slices.Contains(unknown, field) }
		started := p.started
		if started.Name != "home" || (started.Tag != nil) != knows("tag") || (started.Platform != nil) != knows("platform") ||
			(started.AgentVersion != nil) != knows("agentVersion") {
			t.Errorf("a panel that does not know %v heard %+v", unknown, started)
		}
		if unknown == nil && (*started.Platform != runtime.GOOS+"/"+runtime.GOARCH || *started.AgentVersion != version || *started.Tag != tag) {
			t.Errorf("said to be %s with agent %s and tag %s", *started.Platform, *started.AgentVersion, *started.Tag)
		}
	}
	p, m := newPanel(t), newMachine(t)
	m.run("enroll", "--panel", p.URL, "--tag", tag[1:]).want(t, 2, "--tag")
	taken := refusal(409, types.CodeConflict)
	p.refuse = &taken
	m.run("enroll", "--panel", p.URL, "--tag", tag).want(t, 9, "The panel says conflict.")
}

func TestEnroll_PrintsJSONAtStartAndEnd(t *testing.T) {
	p, m := newPanel(t), newMachine(t)
	p.polls = []answer{approved(p.token)}
	m.env["ECLITUNNEL_PANEL"], m.env["ECLITUNNEL_SESSION_TOKEN"] = p.URL, "session\n"
	o := m.run("enroll", "--organisation", "7", "--json")
	o.want(t, 0)
	lines := strings.Split(strings.TrimSpace(o.stdout), "\n")
	if len(lines) != 2 {
		t.Fatalf("printed %q", o.stdout)
	}
	wantKeys(t, lines[0], "expiresAt", "status", "userCode", "verificationUri", "verificationUriComplete")
	wantKeys(t, lines[1], "config", "deviceId", "name", "panelUrl", "status")
	if p.session != "Bearer session" || *p.started.OrganisationID != 7 {
		t.Errorf("started %+v as %q", p.started, p.session)
	}
}

func TestEnroll_SlowsDownAsRequested(t *testing.T) {
	p, m := newPanel(t), newMachine(t)
	slow := refusal(429, types.CodeSlowDown)
	p.polls = []answer{slow, pending(), slow, approved(p.token)}
	m.run("enroll", "--panel", p.URL).want(t, 0)
	want := []time.Duration{5 * time.Second, 10 * time.Second, 10 * time.Second, 15 * time.Second}
	if !slices.Equal(m.waits, want) {
		t.Errorf("waits %v, want %v", m.waits, want)
	}
}

func TestEnroll_SurvivesAPanelThatIsBrieflyUnreachable(t *testing.T) {
	p, m := newPanel(t), newMachine(t)
	for range 12 { // Each poll is tried four times.
		p.polls = append(p.polls, answer{})
	}
	p.polls = append(p.polls, pending(), refusal(500, types.CodeInternalError), approved(p.token))
	o := m.run("enroll", "--panel", p.URL)
	o.want(t, 0, "still waiting")
	if n := strings.Count(o.stderr, "still waiting"); n != 2 {
		t.Errorf("reported %d times that the panel is unreachable, want once for each outage", n)
	}
	p.polls = []answer{{}}
	m.run("enroll", "--panel", p.URL, "--force").want(t, 3)
}

func TestEnroll_ReportsHowItEnds(t *testing.T) {
	for name, c := range map[string]struct {
		last  answer
		code  int
		words string
	}{
		"expired":            {refusal(410, types.CodeEnrollmentExpired), 4, "expired"},
		"denied":             {refusal(403, types.CodeEnrollmentDenied), 5, "denied"},
		"feature off":        {refusal(503, types.CodeFeatureDisabled), 8, "feature_disabled"},
		"already used":       {answer{200, types.EnrollmentStatus{Approved: true}}, 9, "connected already"},
		"not a device token": {approved("x"), 1, "not a device token"},
		"wrong device code":  {refusal(400, types.CodeInvalidRequest), 1, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			p, m := newPanel(t), newMachine(t)
			p.polls = []answer{pending(), c.last}
			m.run("enroll", "--panel", p.URL).want(t, c.code, c.words)
			if _, err := os.Stat(m.env["ECLITUNNEL_CONFIG"]); err == nil {
				t.Error("a config was stored")
			}
		})
	}
	p, m := newPanel(t), newMachine(t)
	denied := refusal(401, types.CodeUnauthorized)
	p.refuse = &denied
	m.run("enroll", "--panel", p.URL).want(t, 5, "--session-token-file")
	m.run("enroll").want(t, 2, "--panel")
	m.run("enroll", "--panel", "panel.test").want(t, 2, "https://")
	m.run("enroll", "--panel", p.URL, "--allow", "game:25565-").want(t, 2, `"game:25565-"`)
	m.run("enroll", "--panel", p.URL, "--allow-ports", "25565,0").want(t, 2, `"0"`)
	m.env["ECLITUNNEL_CONFIG"] = "/proc/none/config.json"
	m.run("enroll", "--panel", p.URL).want(t, 1, "config")
}

func TestEnroll_InstallsRegeneratedToken(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p, "game.lan")
	p.token = deviceToken(p.device, types.DeviceKindClient) + "-new"
	m.run("list").want(t, 5, "--token-file")
	m.stdin = p.token + "\n"
	m.run("enroll", "--token-file", "-").want(t, 0, "home")
	if c := m.config(); c.Token != p.token || c.PanelURL != p.URL || !slices.Equal(c.Allow, []string{"game.lan"}) {
		t.Errorf("config %+v", c)
	}
	m.run("list").want(t, 0)

	m.stdin = deviceToken(uuid.New(), types.DeviceKindClient)
	m.run("enroll", "--token-file", "-", "--panel", p.URL).want(t, 9, "another device")
	m.stdin = "nonsense"
	m.run("enroll", "--token-file", "-").want(t, 2, "not a device token")
	m.stdin = ""
	m.run("enroll", "--token-file", "-").want(t, 2, "standard input is empty")
	m.run("enroll", "--token-file", "/does/not/exist").want(t, 2, "exist")
}

func TestOpen_PrintsAddressOncePlayersCanJoin(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	m.run("open", "tcp", "25565").want(t, 0, "play.test:25000", "127.0.0.1:25565", "listening")
	o := m.run("open", "tcp+udp", "2456", "--public-port", "26000", "--proxy-protocol", "v2", "--udp-idle", "30s", "--no-player-addresses", "--json")
	o.want(t, 0)
	var opened []types.Allocation
	if err := json.Unmarshal([]byte(o.stdout), &opened); err != nil || len(opened) != 2 {
		t.Fatalf("printed %q: %v", o.stdout, err)
	}
	if a := opened[1]; a.Protocol != types.ProtocolUDP || a.Port != 26000 || *a.Options.ProxyProtocol != types.ProxyProtocolV2 || *a.Options.UDPIdleSeconds != 30 || *a.Options.PlayerAddresses {
		t.Errorf("opened %+v", a)
	}
	m.run("open", "udp", "2456", "--public-port", "26000", "--new").want(t, 9, "port_taken")
}

func TestOpen_ReportsWhyPlayersCannotJoin(t *testing.T) {
	for status, c := range map[types.AllocationStatus]struct {
		code  int
		words string
		waits int
	}{
		types.AllocationListening: {0, "listening", 1},
		types.AllocationOffline:   {12, "eclitunnel run", 1},
		types.AllocationFailed:    {14, "the reason", 4},
		types.AllocationPending:   {12, "is pending", 4},
	} {
		p := newPanel(t)
		p.settle = status
		m := enrolledAt(t, p)
		m.run("open", "tcp", "25565", "--wait", "1s").want(t, c.code, c.words)
		if len(m.waits) != c.waits {
			t.Errorf("%s: waits %v", status, m.waits)
		}
		m.run("open", "tcp", "25565", "--wait", "0s", "--new").want(t, 0)
	}
	p := newPanel(t)
	m := enrolledAt(t, p, "game.lan")
	m.run("open", "tcp", "1", "--public-port", "3001", "--host", "192.168.1.5").want(t, 0, "eclitunnel run --allow 192.168.1.5")
	if o := m.run("open", "tcp", "1", "--public-port", "3002", "--host", "game.lan"); strings.Contains(o.stderr, "allow") {
		t.Errorf("warned %q about a host that is allowed", o.stderr)
	}
}

func TestOpen_RejectsInvalidArguments(t *testing.T) {
	m := enrolledAt(t, newPanel(t))
	for _, args := range [][]string{
		{}, {"tcp"}, {"sctp", "1"}, {"tcp", "0"}, {"tcp", "65536"}, {"tcp", "x"}, {"tcp", "1", "--public-port=-1"},
		{"udp", "1", "--udp-idle", "4s"}, {"udp", "1", "--udp-idle", "90m"}, {"udp", "1", "--udp-idle", "5500ms"},
		{"tcp", "1", "--proxy-protocol", "v3"}, {"tcp", "1", "--token", "x"},
	} {
		m.run(append([]string{"open"}, args...)...).want(t, 2)
	}
}
func TestClose_ByIDOrPublicPort(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	m.run("open", "tcp+udp", "1", "--public-port", "3000").want(t, 0) // ids 1 and 2
	m.run("open", "tcp", "1", "--public-port", "4").want(t, 0)        // id 3
	m.run("open", "tcp", "1", "--public-port", "3001").want(t, 0)     // id 4
	m.run("close", "4").want(t, 2, "id:4", "port:4")
	m.run("close", "port:4").want(t, 0, "play.test:4")
	m.run("close", "4").want(t, 0, "play.test:3001")
	o := m.run("close", "3000", "--json")
	o.want(t, 0)
	var closed []types.Allocation
	if err := json.Unmarshal([]byte(o.stdout), &closed); err != nil || len(closed) != 2 {
		t.Errorf("printed %q: %v", o.stdout, err)
	}
	m.run("close", "3000").want(t, 11, "no such port")
	for _, bad := range []string{"", "id:x", "port:", "0", "-1"} {
		m.run("close", "--", bad).want(t, 2)
	}
	for _, absent := range []string{"x", "name:3", "a:b", "id:9"} {
		m.run("close", "--", absent).want(t, 11, "no such port")
	}
	m.run("list").want(t, 0, "No ports are open")
	m.run("list", "--json").want(t, 0, "[]")
}

func TestStatus_ShowsTheDevice(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	m.run("open", "tcp", "25565").want(t, 0)
	m.run("status").want(t, 0, p.URL, "9.9.9", "home", "never connected", "1 open, 1 listening", "play.test:25000")
	o := m.run("status", "--json")
	o.want(t, 0)
	wantKeys(t, o.stdout, "allocations", "device", "here", "panelUrl", "panelVersion")
	o = m.run("version", "--json")
	o.want(t, 0)
	wantKeys(t, o.stdout, "commit", "go", "platform", "version")
}

func TestCommands_UseTheGivenToken(t *testing.T) {
	p, m := newPanel(t), newMachine(t)
	m.run("list").want(t, 6, "not enrolled", "eclitunnel enroll")
	m.env["ECLITUNNEL_TOKEN"] = p.token
	m.run("list").want(t, 2, "panel's address")
	m.env["ECLITUNNEL_PANEL"], m.env["ECLITUNNEL_JSON"] = p.URL, "true"
	m.run("list").want(t, 0, "[]")
	m.env["ECLITUNNEL_TOKEN"], m.env["ECLITUNNEL_JSON"] = "x.y.z", ""
	m.run("list").want(t, 2, "not a device token")
}

func TestCommands_FailuresHaveTheirExitCodes(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	for code, c := range map[int]answer{
		1:  refusal(500, types.CodeInternalError),
		3:  {502, "<html>"},
		5:  refusal(403, types.CodeForbidden),
		8:  refusal(503, types.CodeFeatureDisabled),
		9:  refusal(409, types.CodeConflict),
		10: refusal(503, types.CodeNoPortsAvailable),
		11: refusal(404, types.CodeNotFound),
	} {
		p.refuse = &c
		m.run("open", "tcp", "1").want(t, code)
	}
	full := refusal(409, types.CodeQuotaExceeded)
	p.refuse = &full // It is not tried again, and says what the panel says.
	m.run("open", "tcp", "1").want(t, 9, "The panel says quota_exceeded.")
	gone := httptest.NewServer(nil)
	gone.Close()
	m.run("list", "--panel", gone.URL).want(t, 3, "cannot reach the panel", "refused")
	if err := os.Chmod(m.env["ECLITUNNEL_CONFIG"], 0o644); err != nil {
		t.Fatal(err)
	}
	m.run("list").want(t, 1, "chmod 600")
	if err := os.Chmod(m.env["ECLITUNNEL_CONFIG"], 0o600); err != nil {
		t.Fatal(err)
	}
	m.run("run", "--allow", "game:25565,19132").want(t, 2, `"19132"`, "--allow-ports 19132")
	m.run("run", "--allow-ports", "game:25565").want(t, 2, `"game:25565"`)
	m.run("nonsense").want(t, 2, "--help")
	m.run("--help").want(t, 0, "Exit codes", "ECLITUNNEL_CONFIG", "already runs on this machine")
}

func TestRun_ExitCodeTellsWhyItStopped(t *testing.T) {
	p := newPanel(t)
	p.closeCode = channel.CloseTokenDead
	m := enrolledAt(t, p)
	m.run("run").want(t, 5, "connected to "+p.URL+" as home", "stopped", "the reason")
	p = newPanel(t)
	p.closeCode = channel.CloseDeleted
	m = enrolledAt(t, p)
	o := m.run("run", "--json", "--log-level", "info", "--log-format", "json")
	o.want(t, 5, "deleted on the panel")
	lines := strings.Split(strings.TrimSpace(o.stdout), "\n")
	wantKeys(t, lines[0], "time", "type")
	wantKeys(t, lines[len(lines)-1], "reason", "time", "type")
	wantKeys(t, strings.SplitN(o.stderr, "\n", 2)[0], "deviceId", "level", "msg", "panel", "time")
}

func TestRun_StopsCleanlyOnASignal(t *testing.T) {
	m := enrolledAt(t, newPanel(t))
	o := m.background("connected", "run").stop()
	o.want(t, 0, "stopped")
	if o.stderr != "" {
		t.Errorf("stderr: %s", o.stderr)
	}
}

func TestRun_SurvivesTheReaderOfItsEvents(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no signals")
	}
	p := newPanel(t)
	p.closeCode = channel.CloseRestarting // An event each time.
	m := enrolledAt(t, p)
	for _, args := range [][]string{{"run", "--json"}, {"run"}} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
		cmd.Env = append(os.Environ(), asProgram+"=1", "ECLITUNNEL_CONFIG="+m.env["ECLITUNNEL_CONFIG"])
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := stdout.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		_ = stdout.Close()
		p.mu.Lock()
		enough := p.hellos + 3
		p.mu.Unlock()
		await.Within(t, 20*time.Second, "further connections", func(context.Context) (bool, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.hellos >= enough, nil
		})
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestRun_StoresThePanelsLastState(t *testing.T) {
	p := newPanel(t)
	m := enrolledAt(t, p)
	stored := filepath.Join(filepath.Dir(m.env["ECLITUNNEL_CONFIG"]), p.device.String()+".state.json")
	m.background("connected", "run").stop().want(t, 0)
	if _, err := os.Stat(stored); err != nil {
		t.Error(err)
	}
	m.env["ECLITUNNEL_STATE_DIR"] = t.TempDir()
	m.background("connected", "run").stop().want(t, 0)
	if _, err := os.Stat(filepath.Join(m.env["ECLITUNNEL_STATE_DIR"], filepath.Base(stored))); err != nil {
		t.Error(err)
	}
	p.closeCode = channel.CloseDeleted
	m.run("run").want(t, 5)
	if files, err := os.ReadDir(m.env["ECLITUNNEL_STATE_DIR"]); err != nil || len(files) != 0 {
		t.Errorf("files of a deleted device: %v (%v)", files, err)
	}
}
