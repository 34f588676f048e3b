//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

const (
	// lossWindow is how long before its death what players carried may be lost with a
	// tunnel server, whether or not there is a panel: an interval of its reports, and the
	// second in which it sees that one has passed or was not stored.
	lossWindow = 11 * time.Second
	// catchUp is how long after the end of a fault reports may still wait.
	catchUp = 5 * time.Second
	// usageRest is how long usage must not have changed before it is compared: longer than
	// an interval, so that a report that comes twice shows.
	usageRest = 13 * time.Second
	usagePoll = 500 * time.Millisecond
	// What players carry is noted by rowLength, for at least half of rowsKept: longer than
	// the lossWindow.
	rowLength = 100 * time.Millisecond
	rowsKept  = time.Minute
)

// carriedAt is what players have carried in a short time.
type carriedAt struct {
	at      time.Time // When it began.
	carried traffic.Carried
}

// account adds up what the players of a port have carried, and how much of it may have
// been lost with tunnel servers that were killed. The zero value is ready to use.
type account struct {
	mu      sync.Mutex
	carried traffic.Carried // Since usage was last compared,
	usage   types.UsageSums // which was this then.
	rows    []carriedAt     // In order of time.
	// lost are the most bytes that killed tunnel servers had not reported since then.
	lost bytesEach
}

// bytesEach are bytes each way.
type bytesEach struct{ upload, download uint64 }

func (a *account) add(more traffic.Carried) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.carried = a.carried.Add(more)
	now := time.Now()
	if n := len(a.rows); n > 0 && now.Sub(a.rows[n-1].at) < rowLength {
		a.rows[n-1].carried = a.rows[n-1].carried.Add(more)
		return
	}
	a.rows = append(a.rows, carriedAt{now, more})
	if now.Sub(a.rows[0].at) > rowsKept {
		a.rows = slices.Delete(a.rows, 0, len(a.rows)/2)
	}
}

// lose notes that the tunnel server has been killed, with what it had counted since. What is
// lost once is not lost again.
func (a *account) lose(since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, row := range a.rows {
		if row.at.Add(rowLength).After(since) {
			a.lost.upload += row.carried.UploadMost
			a.lost.download += row.carried.DownloadMost
		}
	}
	a.rows = nil
}

// settle compares the usage that the panel has added up since the last time with what
// players have carried and what was lost, returns both, and what is wrong; "" is nothing.
// The next time begins: no byte of before may be counted any more.
func (a *account) settle(usage types.UsageSums) (carried traffic.Carried, lost bytesEach, wrong string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	carried, lost = a.carried, a.lost
	for _, c := range []struct {
		name              string
		got               int64
		least, most, lost uint64
	}{
		{"upload", usage.UploadBytes - a.usage.UploadBytes, a.carried.UploadLeast, a.carried.UploadMost, a.lost.upload},
		{"download", usage.DownloadBytes - a.usage.DownloadBytes, a.carried.DownloadLeast, a.carried.DownloadMost, a.lost.download},
	} {
		if c.got < 0 || uint64(c.got) > c.most || uint64(c.got)+c.lost < c.least {
			wrong = fmt.Sprintf("%s of %d bytes, where players counted %d to %d and killed tunnel servers lost %d at most",
				c.name, c.got, c.least, c.most, c.lost)
		}
	}
	a.carried, a.usage, a.lost = traffic.Carried{}, usage, bytesEach{}
	return carried, lost, wrong
}

// usage compares the panel's usage with what players have carried. The zero value is
// ready to use.
type usage struct {
	mu    sync.Mutex
	ports []*port   // Every one there ever was.
	until time.Time // When reports last ceased to wait.
	// carried and lost are sums of what was compared, and found says so for people.
	carried traffic.Carried
	lost    bytesEach
	found   string
}

func (u *usage) open(p *port) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ports = append(u.ports, p)
}

// flow says that from now on nothing keeps reports from the panel.
func (u *usage) flow(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.until = now
}

// killed notes the death of a device: what a tunnel server had counted in its last interval
// is lost. What it had counted before is stored, or in its file.
func (u *usage) killed(d *device, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.ports {
		if p.server == d {
			p.account.lose(at.Add(-lossWindow))
		}
	}
}

// caughtUp waits until reports certainly do not wait for an earlier fault: those in the file
// of a tunnel server that is dead are not in the panel's sums.
func (u *usage) caughtUp(ctx context.Context) {
	u.mu.Lock()
	d := catchUp - time.Since(u.until)
	u.mu.Unlock()
	pause(ctx, max(0, d))
}

// settle compares the usage of the ports of a tunnel server, or of all ports with nil.
func (u *usage) settle(server *device, sums map[int64]types.UsageSums, breach func(format string, args ...any)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.ports {
		if server != nil && p.server != server {
			continue
		}
		carried, lost, wrong := p.account.settle(sums[p.ID])
		u.carried = u.carried.Add(carried)
		u.lost = bytesEach{u.lost.upload + lost.upload, u.lost.download + lost.download}
		if wrong != "" {
			breach("%v: usage: %s", p, wrong)
		}
	}
}

// settleDead compares the usage of a tunnel server that is dead, and whose reports the panel
// has stored but for what is lost: so what one death may have cost excuses nothing later.
func (fl *fleet) settleDead(ctx context.Context, server *device) {
	if sums, _, err := fl.askUsage(ctx); err == nil {
		fl.usage.settle(server, sums, fl.breach)
	}
}

// compareUsage waits until the panel's usage no longer changes, and compares every port.
// Players must have left.
func (fl *fleet) compareUsage(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recoveryPatience+usageRest)
	defer cancel()
	var sums map[int64]types.UsageSums
	var last types.UsageSums
	var since time.Time
	if err := cluster.Until(ctx, "the panel's usage no longer changes", func(ctx context.Context) (bool, error) {
		pause(ctx, usagePoll)
		by, total, err := fl.askUsage(ctx)
		if err != nil {
			return false, err
		}
		if sums = by; total != last || since.IsZero() {
			last, since = total, time.Now()
		}
		return time.Since(since) >= usageRest, nil
	}); err != nil {
		return err
	}
	fl.usage.settle(nil, sums, fl.breach)
	u := &fl.usage
	u.found = fmt.Sprintf("; usage of %d ports: %d bytes up, of which players counted %d to %d and killed tunnel servers lost %d at most, "+
		"%d bytes down of %d to %d and %d", len(u.ports), last.UploadBytes, u.carried.UploadLeast, u.carried.UploadMost, u.lost.upload,
		last.DownloadBytes, u.carried.DownloadLeast, u.carried.DownloadMost, u.lost.download)
	return nil
}

// askUsage returns the usage of every allocation there ever was, and that of all.
func (fl *fleet) askUsage(ctx context.Context) (by map[int64]types.UsageSums, total types.UsageSums, err error) {
	grouping, resolution := types.UsageGroupingAllocation, types.UsageByDay
	answer, err := fl.api.GetUsageWithResponse(ctx, &types.GetUsageParams{By: &grouping, From: &fl.started, Resolution: &resolution})
	if err != nil {
		return nil, total, err
	}
	if answer.JSON200 == nil {
		return nil, total, fmt.Errorf("usage: %s: %s", answer.Status(), answer.Body)
	}
	by = map[int64]types.UsageSums{}
	for _, series := range answer.JSON200.Series {
		id, err := series.AllocationID.Get()
		if err != nil {
			return nil, total, fmt.Errorf("usage of no allocation: %w", err)
		}
		by[id] = series.Totals
		total.UploadBytes += series.Totals.UploadBytes
		total.DownloadBytes += series.Totals.DownloadBytes
	}
	return by, total, nil
}
