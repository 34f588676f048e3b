package publicport

import (
	"net/netip"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/meter"
)

func noRoundTrip(uuid.UUID) time.Duration { return 0 }

// enter adds players, who are carried.
func (c *connections) enter(n int, usage *meter.Allocation) (added []*connection) {
	for range n {
		m := usage.New()
		m.Join()
		added = append(added, c.add(&connection{allocation: 1, source: netip.MustParseAddrPort("192.0.2.1:1"), meter: m}))
	}
	return added
}

func TestConnections_AFloodBetweenTwoReportsIsNotReported(t *testing.T) {
	var c connections
	var usage meter.Allocation
	now := time.Unix(1e9, 0)
	c.start()
	if r := c.report(now, noRoundTrip); r == nil || r.Complete == nil {
		t.Fatalf("the first report is %+v", r)
	}
	stays := c.enter(1, &usage)
	for range 10_000 {
		c.remove(c.enter(1, &usage)[0])
	}
	if len(c.fresh) > 2*types.MaxConnectionsReportOpened {
		t.Errorf("%d wait for a report", len(c.fresh))
	}
	r := c.report(now, noRoundTrip)
	if len(r.Opened) != 1 || len(r.Closed) != 0 {
		t.Errorf("reported %d opened and %d closed", len(r.Opened), len(r.Closed))
	}
	c.remove(stays[0])
	c.remove(stays[0])
	if r = c.report(now, noRoundTrip); len(r.Closed) != 1 {
		t.Errorf("reported %d closed", len(r.Closed))
	}
	if r = c.report(now, noRoundTrip); r != nil {
		t.Errorf("reported %+v", r)
	}
}

func TestConnections_AreReportedInBoundedPartsAndInTurn(t *testing.T) {
	var c connections
	var usage meter.Allocation
	now := time.Unix(1e9, 0)
	const players = 6000
	all := c.enter(players, &usage)
	opened, parts := 0, 0
	c.start()
	for complete := false; !complete; parts++ {
		r := c.report(now, noRoundTrip)
		if len(r.Opened) > types.MaxConnectionsReportOpened {
			t.Fatalf("%d in one report", len(r.Opened))
		}
		opened += len(r.Opened)
		complete = r.Complete != nil
	}
	if opened != players || parts != players/types.MaxConnectionsReportOpened {
		t.Errorf("%d in %d parts", opened, parts)
	}

	// Each has its turn, once a second a part of them, and none twice within ten seconds.
	for _, n := range all {
		n.meter.Download(1)
	}
	updated := map[string]time.Time{}
	for range 60 {
		now = now.Add(250 * time.Millisecond)
		r := c.report(now, noRoundTrip)
		if r == nil {
			continue
		}
		for _, n := range r.Updated {
			if before, ok := updated[n.ID]; ok {
				t.Fatalf("%s again after %v", n.ID, now.Sub(before))
			}
			updated[n.ID] = now
		}
	}
	if n := len(updated); n > 15*types.MaxConnectionsReportUpdated || n < 4*types.MaxConnectionsReportUpdated {
		t.Errorf("%d were updated in 15 s", n)
	}
	for range 60 {
		now = now.Add(250 * time.Millisecond)
		if r := c.report(now, noRoundTrip); r != nil {
			for _, n := range r.Updated {
				updated[n.ID] = now
			}
		}
	}
	if len(updated) != players {
		t.Errorf("%d of %d were updated", len(updated), players)
	}
}

func TestConnections_PlayersWhoAreNotCarriedAreNotReported(t *testing.T) {
	var c connections
	var usage meter.Allocation
	now := time.Unix(1e9, 0)
	waits := c.add(&connection{allocation: 1, source: netip.MustParseAddrPort("192.0.2.1:1"), meter: usage.New()})
	c.start()
	if r := c.report(now, noRoundTrip); len(r.Opened) != 0 || r.Complete == nil {
		t.Errorf("reported %+v", r)
	}
	waits.meter.Join()
	if r := c.report(now, noRoundTrip); len(r.Opened) != 1 {
		t.Errorf("reported %+v once carried", r)
	}
}

// A player who has left holds a socket, and the panel may be away for days.
func TestConnections_WhoLeavesWhileThereIsNoChannelIsNotKept(t *testing.T) {
	var c connections
	var usage meter.Allocation
	now := time.Unix(1e9, 0)
	c.start()
	reported := c.enter(2, &usage)
	c.report(now, noRoundTrip)
	left := weak.Make(reported[0])
	c.stop()
	c.remove(reported[0])
	c.remove(c.enter(1, &usage)[0])
	reported[0] = nil
	runtime.GC()
	if left.Value() != nil {
		t.Error("a player who has left is kept")
	}
	if len(c.fresh)+len(c.reported)+len(c.closed) > 0 {
		t.Error("something waits for a report")
	}
	c.start()
	if r := c.report(now, noRoundTrip); len(r.Opened) != 1 || len(r.Closed) != 0 || r.Complete == nil {
		t.Errorf("the next channel is told %+v", r)
	}
	runtime.KeepAlive(&c)
}
