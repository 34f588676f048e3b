package control

import (
	"fmt"
	"testing"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

func everyAllocation(int64) bool { return true }

// reportOf reports connections from one number on that have opened, and one that has closed; 0: none.
func reportOf(first, opened, closed int) types.ConnectionsReport {
	var report types.ConnectionsReport
	for i := range opened {
		report.Opened = append(report.Opened, types.OpenedConnection{ID: fmt.Sprintf("%016x", first+i), SourceAddress: "192.0.2.1"})
	}
	if closed > 0 {
		report.Closed = append(report.Closed, types.ConnectionCounters{ID: fmt.Sprintf("%016x", closed), DownloadBytes: 7})
	}
	return report
}

func TestConnections_ATunnelServerCanHaveOnlySoMany(t *testing.T) {
	c := newConnections()
	for i := 0; i <= maxConnections; i += 500 {
		if !c.add(reportOf(i+1, 500, 0), everyAllocation) {
			t.Fatalf("full with %d", i)
		}
	}
	if n := len(c.opened); n != maxConnections {
		t.Errorf("%d are queued", n)
	}
	// While the database is away, connections that come and go fill the queue, and then end the channel.
	full := false
	for i := 1; !full && i <= 2*maxUnsaved; i++ {
		full = !c.add(reportOf(maxConnections+i, 1, i), everyAllocation)
	}
	if n := len(c.opened) + len(c.closed); !full || n > maxUnsaved+1 {
		t.Errorf("full %v with %d", full, n)
	}
}

func TestConnections_WhatCouldNotBeStoredIsQueuedAgainUnlessItIsOlder(t *testing.T) {
	c := newConnections()
	c.add(reportOf(1, 4, 0), everyAllocation)
	c.add(types.ConnectionsReport{Updated: []types.ConnectionCounters{{ID: fmt.Sprintf("%016x", 9), DownloadBytes: 1}}}, everyAllocation) // Never opened.
	failed, any := c.take(5)
	if !any || failed.Generation != 5 || len(failed.Opened) != 4 || len(failed.Updated) != 0 {
		t.Fatalf("took %+v", failed)
	}
	// Meanwhile one ends, and one has carried more.
	c.add(reportOf(0, 0, 2), everyAllocation)
	c.add(types.ConnectionsReport{Updated: []types.ConnectionCounters{{ID: fmt.Sprintf("%016x", 3), DownloadBytes: 30}}}, everyAllocation)
	c.restore(failed)
	again, _ := c.take(5)
	got := map[int64]db.OpenedConnection{}
	for _, o := range again.Opened {
		got[o.Number] = o
	}
	if len(got) != 3 || got[3].DownloadBytes != 30 || len(again.Updated) != 0 || len(again.Closed) != 1 || again.Closed[0].Number != 2 || again.Closed[0].DownloadBytes != 7 {
		t.Errorf("queued again: %+v", again)
	}
	if _, any := c.take(5); any {
		t.Error("there is more")
	}
}
