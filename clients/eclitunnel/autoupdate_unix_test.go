//go:build unix

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent/update"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// auto returns the updates of an agent on the machine, whose waits take no time.
func (u updating) auto(players func() int) *autoUpdate {
	u.t.Helper()
	key, err := update.ParseKey(releaseKey)
	if err != nil {
		u.t.Fatal(err)
	}
	a := &app{env: os.LookupEnv, wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}
	client, err := a.clientWith(u.panel.URL, false, func() string { return "" })
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(client.Close)
	return &autoUpdate{app: a, client: client, key: key, path: u.program, log: slog.New(slog.DiscardHandler), players: players}
}

func nobody() int { return 0 }

func wantRestart(t *testing.T, err error) {
	t.Helper()
	if !as[*restartError](err) {
		t.Errorf("it ends with %v, not for a restart", err)
	}
}

func TestAutoUpdate_InstallsEndsAndIsKeptOnceItWorks(t *testing.T) {
	u := newUpdating(t, true)
	u.handOut("1.1.0")
	u.background("connected", "run", "--auto-update").end().want(t, 15, "version 1.1.0 now")
	u.wantProgram("1.1.0", "1.0.0")
	if tried := update.ReadTrial(u.program); tried.Version != "1.1.0" {
		t.Errorf("on trial: %+v", tried)
	}
	version = "1.1.0"
	second := u.background("connected", "run", "--auto-update")
	await.Until(t, "the end of the trial", func() bool { return update.ReadTrial(u.program) == update.Trial{} })
	second.stop().want(t, 0)
	u.wantProgram("1.1.0", "1.0.0")
}

func TestAutoUpdate_GoesBackFromWhatDoesNotReachThePanelAndStaysThere(t *testing.T) {
	u := newUpdating(t, true)
	u.handOut("1.1.0")
	wantRestart(t, u.auto(nobody).update(t.Context()))
	down := refusal(503, types.CodeUnavailable)
	u.panel.refuse = &down
	version = "1.1.0"
	u.background("not connected", "run", "--auto-update").end().want(t, 15, "does not reach the panel")
	u.wantProgram("1.0.0", "1.1.0")

	u.panel.mu.Lock()
	u.panel.refuse = nil
	u.panel.mu.Unlock()
	version = "1.0.0"
	if err := u.auto(nobody).update(t.Context()); err != nil {
		t.Errorf("it takes what has failed: %v", err)
	}
	u.wantProgram("1.0.0", "1.1.0")
	u.handOut("1.2.0")
	wantRestart(t, u.auto(nobody).update(t.Context()))
	u.wantProgram("1.2.0", "1.0.0")
}

func TestAutoUpdate_GoesBackFromWhatKeepsEnding(t *testing.T) {
	u := newUpdating(t, true)
	u.handOut("1.1.0")
	wantRestart(t, u.auto(nobody).update(t.Context()))
	version = "1.1.0"
	ended, end := context.WithCancel(t.Context())
	end()
	for range trialStarts {
		if err := u.auto(nobody).trial(ended); err != nil {
			t.Errorf("it ends with %v", err)
		}
	}
	u.wantProgram("1.1.0", "1.0.0")
	wantRestart(t, u.auto(nobody).trial(ended))
	u.wantProgram("1.0.0", "1.1.0")
}

func TestAutoUpdate_WaitsForPlayersButNotForever(t *testing.T) {
	u := newUpdating(t, true)
	u.handOut("1.1.0")
	asked := 0
	wantRestart(t, u.auto(func() int {
		if asked++; asked%1000 == 0 {
			u.wantProgram("1.0.0", "")
		}
		return asked % idleTicks / (idleTicks - 1) // One in six looks finds a player.
	}).update(t.Context()))
	if asked != idleLimit {
		t.Errorf("it looked for players %d times, want %d", asked, idleLimit)
	}

	u = newUpdating(t, true)
	u.handOut("1.1.0")
	asked = 0
	wantRestart(t, u.auto(func() int {
		asked++
		return max(0, 10-asked)
	}).update(t.Context()))
	if asked != 9+idleTicks {
		t.Errorf("it looked for players %d times, want %d", asked, 9+idleTicks)
	}
}

func TestAutoUpdate_TakesNothingOlderOrUnsigned(t *testing.T) {
	u := newUpdating(t, true)
	u.handOut("0.9.0")
	if err := u.auto(nobody).update(t.Context()); err != nil {
		t.Error(err)
	}
	u.handOut("1.1.0")
	delete(u.panel.files, "SHA256SUMS.sig")
	if err := u.auto(nobody).update(t.Context()); !errors.Is(err, update.ErrSignature) {
		t.Errorf("unsigned: %v", err)
	}
	u.wantProgram("1.0.0", "")
}

func TestAutoUpdate_SaysWhereItIsOfNoUse(t *testing.T) {
	u := newUpdating(t, true)
	u.program = "/proc/self/eclitunnel"
	b := u.background("connected", "run", "--auto-update") // Players matter more.
	b.stop().want(t, 0, "will not be updated")
	u.panel.token = deviceToken(u.panel.device, types.DeviceKindServer)
	u.env["ECLITUNNEL_TOKEN"], u.env["ECLITUNNEL_PANEL"] = u.panel.token, u.panel.URL
	u.run("run", "--auto-update").want(t, 2, "drain it on the panel")
	delete(u.env, "ECLITUNNEL_TOKEN")
	releaseKey = ""
	u.run("run", "--auto-update").want(t, 2, "no key")
}
