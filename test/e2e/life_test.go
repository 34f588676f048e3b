package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// gone waits until a player's connection has ended, at most d after since, and
// logs how long it took.
func gone(t *testing.T, player net.Conn, since time.Time, d time.Duration) {
	t.Helper()
	if err := player.SetReadDeadline(since.Add(d)); err != nil {
		t.Fatal(err)
	}
	if _, err := player.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the player is still connected after %v (%v)", time.Since(since), err)
	}
	t.Logf("the player was gone after %v", time.Since(since))
}

// exits waits for an agent's end and checks that it failed and said why.
func exits(t *testing.T, agent *cluster.Process, why string) {
	t.Helper()
	code, err := agent.Wait(within(t, 5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if code == 0 {
		t.Error("the agent's exit code says success")
	}
	if !regexp.MustCompile(`(?i)` + why).MatchString(agent.LastLines(5)) {
		t.Errorf("the agent does not say why it stopped (%s):\n%s", why, agent.LastLines(5))
	}
	t.Logf("exit code %d: %s", code, agent.LastLines(1))
}

func TestPanel_KilledAndStartedAgainKeepsEverything(t *testing.T) {
	w, game := ownWorld(t), startEcho(t)
	public := w.expose(t, types.CreateTCPUDP, game.port, nil)
	awaitPlay(t, patience, public)
	before := w.everything(t)

	if err := w.panel.Kill(); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if err := w.panel.Restart(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	ready := time.Since(started)
	awaitPlay(t, 10*time.Second, public)
	t.Logf("started again, the panel was ready after %v, and a player could join after %v", ready, time.Since(started))

	if after := w.everything(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	for _, a := range w.allocations(t, game.port) {
		w.awaitListening(t, a.ID)
	}
}

// everything is what the panel must keep, in words: its devices, their
// allocations and ports.
func (w *world) everything(t *testing.T) string {
	t.Helper()
	devices, err := w.panel.API.ListDevicesWithResponse(within(t, patience), nil)
	if err != nil || devices.JSON200 == nil {
		t.Fatalf("list devices: %v %s", err, devices.Body)
	}
	text := new(strings.Builder)
	for _, d := range *devices.JSON200 {
		text.WriteString(d.ID.String() + " " + d.Name + " " + string(d.Kind) + "\n")
		for _, a := range w.allocations(t, 0) {
			if a.DeviceID == d.ID {
				text.WriteString("  " + string(a.Protocol) + " " + a.PublicAddress + " " + a.CreatedAt.String() + "\n")
			}
		}
	}
	return text.String()
}

// allocations lists the agent's allocations that lead to a local port; 0 for all.
func (w *world) allocations(t *testing.T, localPort int) []types.Allocation {
	t.Helper()
	answer, err := w.panel.API.ListAllocationsWithResponse(within(t, patience), nil)
	if err != nil || answer.JSON200 == nil {
		t.Fatalf("list allocations: %v", err)
	}
	var found []types.Allocation
	for _, a := range *answer.JSON200 {
		if localPort == 0 || a.LocalPort == localPort {
			found = append(found, a)
		}
	}
	return found
}

func TestPanel_StopsCleanlyWithItsPostgres(t *testing.T) {
	w := ownWorld(t)
	if err := w.panel.Stop(); err != nil {
		t.Fatal(err)
	}
	if code := w.panel.ExitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, w.panel.LastLines(10))
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range commands {
		// A process that ended meanwhile reads as nothing.
		if line, _ := os.ReadFile(path); strings.Contains(string(line), w.dir+"/panel") {
			t.Errorf("still runs: %s", strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	if err := w.panel.Restart(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
}

func TestAgent_KilledAndStartedAgainServesOnTheSamePorts(t *testing.T) {
	w, game := ownWorld(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	player := join(t, public)
	killed := time.Now()
	if err := w.running.Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, player, killed, patience)
	var err error
	if w.running, err = w.agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Logf("back after %v", awaitPlay(t, 10*time.Second, public))
}

func TestDevice_DeletedIsGoneWithinASecond(t *testing.T) {
	w, game := ownWorld(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	player := join(t, public)
	if _, err := exchange(player, 1, patience); err != nil {
		t.Fatal(err)
	}
	deleted := time.Now()
	answer, err := w.panel.API.DeleteDeviceWithResponse(within(t, patience), w.agent.Device.ID)
	if err != nil || answer.JSON200 == nil {
		t.Fatalf("delete: %v %s", err, answer.Body)
	}
	gone(t, player, deleted, time.Second)
	exits(t, w.running, "delete")
	closed(t, time.Second, public)
	if left := w.allocations(t, 0); len(left) != 0 {
		t.Errorf("allocations left: %v", left)
	}
}

func TestDevice_RegeneratedTokenEndsTheOldOneWithinASecond(t *testing.T) {
	w, game := ownWorld(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	player := join(t, public)
	if _, err := exchange(player, 1, patience); err != nil {
		t.Fatal(err)
	}
	regenerated := time.Now()
	answer, err := w.panel.API.RegenerateDeviceTokenWithResponse(within(t, patience), w.agent.Device.ID)
	if err != nil || answer.JSON200 == nil {
		t.Fatalf("regenerate: %v %s", err, answer.Body)
	}
	gone(t, player, regenerated, time.Second)
	exits(t, w.running, "token")

	// The contract says how the agent is given its new token.
	token := filepath.Join(t.TempDir(), "token")
	writeFile(t, token, []byte(answer.JSON200.Token+"\n"), 0o600)
	if _, err := w.agent.Run(within(t, patience), "enroll", "--panel", w.panel.URL, "--token-file", token); err != nil {
		t.Fatal(err)
	}
	if w.running, err = w.agent.Start(); err != nil {
		t.Fatal(err)
	}
	awaitPlay(t, 10*time.Second, public)
}

func TestAgent_SecondOneOnItsMachineEndsAndSaysWhy(t *testing.T) {
	w, game := ownWorld(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	player := join(t, public)
	second, err := w.agent.Start()
	if err != nil {
		t.Fatal(err)
	}
	exits(t, second, fmt.Sprintf(`already runs on this machine \(pid %d\)`, w.running.PID()))
	if second.ExitCode() != 13 {
		t.Errorf("exit code %d", second.ExitCode())
	}
	if _, err := exchange(player, 1, patience); err != nil {
		t.Errorf("the first one's player: %v", err)
	}
	if err := w.running.Kill(); err != nil {
		t.Fatal(err)
	}
	if w.running, err = w.agent.Start(); err != nil {
		t.Fatal(err)
	}
	awaitPlay(t, patience, public)
}

func TestAgent_NewerOfTwoWinsUntilItIsGone(t *testing.T) {
	t.Parallel() // The older waits for a minute.
	w, game := ownWorld(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	older := w.running
	elsewhere, err := w.agent.Copy(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	newer, err := elsewhere.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = newer.Stop() }) // It was killed, unless the test failed.
	await.Within(t, patience, "older agent that stands by", func(context.Context) (bool, error) {
		return strings.Contains(older.Output(), "standing by"), nil
	})
	status, err := w.agent.Run(within(t, patience), "status")
	if err != nil || !strings.Contains(status, "standing by") {
		t.Errorf("status of the older: %v\n%s", err, status)
	}
	awaitPlay(t, patience, public)
	// Two that fight would take turns within their back-off, which starts below a second.
	player := join(t, public)
	for i := uint64(0); i < 60; i++ {
		if _, err := exchange(player, i, time.Second); err != nil {
			t.Fatalf("after exchange %d: %v", i, err)
		}
		select {
		case <-newer.Done():
			t.Fatalf("the newer agent ended: %s", newer.LastLines(5))
		case <-time.After(50 * time.Millisecond): // the pace of a player, not a wait
		}
	}

	// The panel's restart is no end of the newer.
	if err := w.panel.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.panel.Restart(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	awaitPlay(t, patience, public)
	if n := strings.Count(older.Output(), "connected to http"); n != 1 {
		t.Fatalf("the older agent has connected %d times: %s", n, older.Output())
	}

	if err := newer.Kill(); err != nil {
		t.Fatal(err)
	}
	took := awaitPlay(t, 3*time.Minute, public)
	t.Logf("%v after the newer agent's end, players could join", took)
	if took < time.Minute {
		t.Error("the newer one could have been restarting")
	}
	if n := strings.Count(older.Output(), "connected to http"); n != 2 {
		t.Errorf("the older agent has connected %d times: %s", n, older.Output())
	}
}

func TestFeatureFlag_ClosesEverythingAndBringsItBack(t *testing.T) {
	w, game := ownWorld(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	player := join(t, public)
	if _, err := exchange(player, 1, patience); err != nil {
		t.Fatal(err)
	}
	switched := time.Now()
	w.setTunnels(t, false)
	gone(t, player, switched, 5*time.Second)
	closed(t, 5*time.Second, public)
	answer, err := w.panel.API.ListAllocationsWithResponse(within(t, patience), nil)
	if err != nil {
		t.Fatal(err)
	}
	if answer.JSON503 == nil || answer.JSON503.Error != types.CodeFeatureDisabled {
		t.Errorf("list allocations: %s: %s", answer.Status(), answer.Body)
	}

	w.setTunnels(t, true)
	t.Logf("a player could join again after %v", awaitPlay(t, patience, public))
	select {
	case <-w.running.Done():
		t.Error("the agent gave up while the feature was off")
	default:
	}
}

func (w *world) setTunnels(t *testing.T, on bool) {
	t.Helper()
	var patch types.SettingsPatch
	patch.Features = &struct {
		Tunnels *bool `json:"tunnels,omitempty"`
	}{&on}
	answer, err := w.panel.API.UpdateSettingsWithResponse(within(t, patience), patch)
	if err != nil || answer.JSON200 == nil {
		t.Fatalf("tunnels %v: %v", on, err)
	}
}

func TestAllocation_RefusedLocalPortIsRefusedToThePlayer(t *testing.T) {
	w := sharedFor(t)
	public := w.expose(t, types.CreateTCP, freePort(t), nil)
	joined := time.Now()
	gone(t, join(t, public), joined, 2*time.Second)
}

func TestAllocation_ServesIPv6Players(t *testing.T) {
	w, game := sharedFor(t), startEcho(t)
	port := portOf(t, w.expose(t, types.CreateTCP, game.port, nil))
	probe, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	}
	probe.Close()
	if err := plays(t.Context(), net.JoinHostPort("::1", port)); err != nil {
		t.Error(err)
	}
}

func TestAllocation_DeletedFreesItsPortAtOnce(t *testing.T) {
	w, game := sharedFor(t), startEcho(t)
	public := w.expose(t, types.CreateTCP, game.port, nil)
	player := join(t, public)
	if _, err := exchange(player, 1, patience); err != nil {
		t.Fatal(err)
	}
	deleted := time.Now()
	w.withdraw(t, w.allocations(t, game.port))
	gone(t, player, deleted, time.Second)
	await.Within(t, time.Second, "free port", func(ctx context.Context) (bool, error) {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+portOf(t, public))
		if err != nil {
			return false, nil
		}
		return true, ln.Close()
	})
}
