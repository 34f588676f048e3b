//go:build linux

package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// The tunnel server's own times; see relay and relay/publicport.
const (
	usageEvery       = 10 * time.Second
	connectionsEvery = time.Second
)

// livePlayers are simulated players of a tunnel server, one on each allocation, each of whom
// is replaced by another one now and then.
type livePlayers struct {
	allocations []int64
	epoch       uuid.UUID
	sequence    int64
	carried     int64
	ids         []string // Of their connections.
	turn        int      // Whose counts are reported next.
	ack         chan struct{}
	stored      atomic.Int64 // Reports of usage.
}

func newPlayers(d *device) *livePlayers {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := &livePlayers{epoch: uuid.New(), ack: make(chan struct{}, 1)}
	for id := range d.listening {
		p.allocations = append(p.allocations, id)
		p.ids = append(p.ids, newConnectionID())
	}
	return p
}

func newConnectionID() string { return fmt.Sprintf("%016x", rand.Uint64()) }

// parts is how many reports the usage of a time takes.
func (p *livePlayers) parts() int64 {
	return int64((len(p.allocations) + types.MaxUsageReportAllocations - 1) / types.MaxUsageReportAllocations)
}

// usage is how many bytes of download all allocations report of a time.
func (p *livePlayers) usage() (sum int64) {
	for _, id := range p.allocations {
		sum += downloadOf(id)
	}
	return sum
}

// downloadOf is how many bytes an allocation reports of a time.
func downloadOf(id int64) int64 { return 1_000_000 + id }

func (p *livePlayers) acknowledged() {
	p.stored.Add(1)
	select {
	case p.ack <- struct{}{}:
	default:
	}
}

// report reports players as a tunnel server does, until ctx or the channel ends.
func (p *livePlayers) report(ctx context.Context, to *messages) {
	if p.arrive(to) != nil {
		return
	}
	connections := time.NewTicker(connectionsEvery)
	defer connections.Stop()
	usage := time.NewTicker(usageEvery)
	defer usage.Stop()
	for p.reportUsage(ctx, to) == nil {
		for due := false; !due; {
			select {
			case <-ctx.Done():
				return
			case <-connections.C:
				if to.write(p.change()) != nil {
					return
				}
			case <-usage.C:
				due = true
			}
		}
	}
}

// arrive reports every connection.
func (p *livePlayers) arrive(to *messages) error {
	var all []types.OpenedConnection
	for i := range p.allocations {
		all = append(all, p.opened(i))
	}
	for part := range slices.Chunk(all, types.MaxConnectionsReportOpened) {
		if err := to.write(connections(part, nil, nil)); err != nil {
			return err
		}
	}
	return to.write(types.ConnectionsReport{
		Type: types.TypeConnections, Opened: []types.OpenedConnection{}, Updated: []types.ConnectionCounters{},
		Closed: []types.ConnectionCounters{}, Complete: new(true),
	})
}

func connections(opened []types.OpenedConnection, updated, closed []types.ConnectionCounters) types.ConnectionsReport {
	return types.ConnectionsReport{
		Type: types.TypeConnections, Opened: append([]types.OpenedConnection{}, opened...),
		Updated: append([]types.ConnectionCounters{}, updated...), Closed: append([]types.ConnectionCounters{}, closed...),
	}
}

func (p *livePlayers) opened(i int) types.OpenedConnection {
	return types.OpenedConnection{
		ID: p.ids[i], AllocationID: p.allocations[i], Since: time.Now(),
		SourceAddress: fmt.Sprintf("203.0.%d.%d", i/250%250, 1+i%250), SourcePort: 1024 + i%50_000,
	}
}

func (p *livePlayers) counters(i int) types.ConnectionCounters {
	p.carried += 4096
	return types.ConnectionCounters{
		ID: p.ids[i], DownloadBytes: p.carried, UploadBytes: p.carried / 8, PlayerRoundTripMs: new(float32(24.5)), TunnelRoundTripMs: new(float32(11)),
	}
}

// change is what changes in connectionsEvery: the counts of every connection within
// usageEvery, and for each hundred of those a player who leaves and one who comes.
func (p *livePlayers) change() types.ConnectionsReport {
	var opened []types.OpenedConnection
	var updated, closed []types.ConnectionCounters
	due := min(types.MaxConnectionsReportUpdated, (len(p.ids)+9)*int(connectionsEvery)/int(usageEvery))
	for range due {
		i := p.turn % len(p.ids)
		p.turn++
		if p.turn%100 > 0 {
			updated = append(updated, p.counters(i))
			continue
		}
		closed = append(closed, p.counters(i))
		p.ids[i] = newConnectionID()
		opened = append(opened, p.opened(i))
	}
	return connections(opened, updated, closed)
}

// reportUsage reports what each allocation has carried, each part once the one before it is
// stored.
func (p *livePlayers) reportUsage(ctx context.Context, to *messages) error {
	for part := range slices.Chunk(p.allocations, types.MaxUsageReportAllocations) {
		p.sequence++
		report := types.UsageReport{Type: types.TypeUsage, Epoch: p.epoch, Sequence: p.sequence, Seconds: int64(usageEvery / time.Second)}
		for _, id := range part {
			report.Allocations = append(report.Allocations, types.AllocationUsage{
				ID: id, Players: 1, PeakPlayers: 1, DownloadBytes: downloadOf(id), UploadBytes: downloadOf(id) / 10,
			})
		}
		if err := to.write(report); err != nil {
			return err
		}
		select {
		case <-p.ack:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
