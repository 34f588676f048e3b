package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// leaveState runs an agent that serves allocation 1 on a tunnel server, stops it, and
// returns its state file.
func leaveState(t *testing.T, p *panel) (file string, server types.ClientServer) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "deep", "device.state.json")
	server = types.ClientServer{ID: uuid.New(), Address: "relay.test:7443", Fingerprint: "f", Ticket: "ticket"}
	r := startAt(t, p, func(o *Options) { o.StateFile = file })
	c := r.channel(t)
	m := snapshot(1)
	m.Servers = []types.ClientServer{server}
	c.send(t, m)
	r.appliedIDs(t)
	c.send(t, change(2, []int64{1}, nil))
	wantIDs(t, r.appliedIDs(t), 1)
	r.stop()
	<-r.done
	return file, server
}

func TestAgent_StartsFromItsLastStateWhileThePanelIsAway(t *testing.T) {
	p := newPanel(t)
	file, server := leaveState(t, p)
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the state, which holds tickets, has mode %v (%v)", info.Mode(), err)
	}
	p.Close()
	r := startAt(t, p, func(o *Options) { o.StateFile = file })
	wantIDs(t, r.appliedIDs(t), 1)
	if got := next(t, r.links.servers, "servers"); len(got) != 1 || got[0] != server {
		t.Errorf("servers %v, want %v", got, server)
	}
	r.event(t, EventDisconnected)
	r.links.report(readyReport(1))
	if e := r.event(t, EventAllocationReady); e.Allocation.PublicAddress != "play.test:20001" {
		t.Errorf("event %+v", e)
	}
}

func TestAgent_KeepsNoStateThatIsOverForGood(t *testing.T) {
	for name, end := range map[string]struct {
		code    int
		refusal types.ErrorCode
		kept    bool
	}{
		"token dead":       {code: channel.CloseTokenDead},
		"deleted":          {code: channel.CloseDeleted},
		"refused":          {code: channel.CloseRestarting, refusal: types.CodeTokenRevoked},
		"switched off":     {code: channel.CloseFeatureOff, refusal: types.CodeFeatureDisabled},
		"taken over":       {code: channel.CloseTakenOver, kept: true},
		"panel restarting": {code: channel.CloseRestarting, kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPanel(t)
			file, _ := leaveState(t, p)
			r := startAt(t, p, func(o *Options) { o.StateFile = file })
			c := r.channel(t)
			if end.refusal != "" {
				r.refuse <- types.Problem{Error: end.refusal, Message: "no"}
			}
			c.Close(end.code, "why")
			if end.refusal == types.CodeFeatureDisabled {
				r.event(t, EventSwitchedOff)
			} else if end.code == channel.CloseTakenOver {
				r.event(t, EventStandby)
			} else if end.code == channel.CloseRestarting && end.refusal == "" {
				r.event(t, EventDisconnected)
			} else {
				r.event(t, EventStopped)
			}
			r.stop()
			<-r.done
			if exists(t, file) != end.kept {
				t.Errorf("the state is kept: %v, want %v", !end.kept, end.kept)
			}
		})
	}
}
