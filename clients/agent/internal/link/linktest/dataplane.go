// Package linktest runs links for tests, with a tunnel server, a panel, games and
// players around them, all on the loopback.
package linktest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/pacing"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

// DataPlane is a tunnel server, a tunnel client's links to it, and the panel of both.
// The panel's part towards the client is the test's: it changes Servers and
// Allocations, and calls Apply.
type DataPlane struct {
	T       testing.TB
	Panel   *relaytest.Panel
	Server  *relaytest.Server
	Client  uuid.UUID
	Targets *target.Dialer
	Links   *link.Manager
	Stop    func() error    // Ends Links and returns what Run returned.
	Ended   <-chan struct{} // Closed when Run of Links has returned, whatever ended it.

	Mu          sync.Mutex // Guards the desired state.
	Servers     []types.ClientServer
	Allocations []types.ClientAllocation

	firstID int64         // Of Allocations.
	changed chan struct{} // Holds one signal: Reports of Links may have changed.
}

// Options change the options of both ends before they start. Either may be nil.
type Options struct {
	Server func(*relay.Options)
	Links  func(*link.Options)
}

// New starts a DataPlane without allocations. The test's end stops it.
func New(t testing.TB, o Options) *DataPlane {
	t.Helper()
	d := &DataPlane{T: t, Panel: relaytest.NewPanel(t), firstID: 1}
	d.Server = relaytest.Start(t, d.Panel, o.Server)
	d.Panel.AwaitHellos(1)
	d.link(o)
	return d
}

// Another starts the links of another tunnel client to the same tunnel server. It may be
// called once.
func (d *DataPlane) Another(o Options) *DataPlane {
	d.T.Helper()
	other := &DataPlane{T: d.T, Panel: d.Panel, Server: d.Server, firstID: 1001}
	other.link(o)
	return other
}

// link makes a tunnel client and starts its links.
func (d *DataPlane) link(o Options) {
	d.T.Helper()
	d.Client, d.changed = uuid.New(), make(chan struct{}, 1)
	d.Panel.PutClient(d.Client, 1)
	d.Servers = []types.ClientServer{{
		ID: d.Panel.Server, Address: d.Server.Address, Fingerprint: d.Server.Fingerprint(),
		Ticket: d.Panel.Ticket(d.Client, 1, nil),
	}}
	d.StartLinks(o.Links)
}

// StartLinks runs new links, which replace Links. The test's end stops them.
func (d *DataPlane) StartLinks(change func(*link.Options)) {
	pacer := pacing.New()
	options := link.Options{
		Targets: target.NewDialer(target.Options{Allow: AllowLoopback}),
		OnChange: func() {
			select {
			case d.changed <- struct{}{}:
			default:
			}
		},
		Backoff: backoff.Exponential{Min: time.Millisecond, Max: 20 * time.Millisecond},
		Logger:  slog.New(slog.DiscardHandler),
		Dialer:  pacer.Dialer,
	}
	if change != nil {
		change(&options)
	}
	links := link.New(options)
	ctx, cancel := context.WithCancel(context.Background())
	var pacing sync.WaitGroup
	pacing.Go(func() { pacer.Run(ctx) })
	ended := make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		err = links.Run(ctx)
	}()
	d.Targets, d.Links, d.Ended = options.Targets, links, ended
	d.Stop = func() error {
		cancel()
		pacing.Wait()
		<-ended
		return err
	}
	stop := d.Stop
	d.T.Cleanup(func() { _ = stop() })
}

// AllowLoopback allows local hosts on the loopback, with all ports.
func AllowLoopback(host string, _ int) error {
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s is not on this agent's allow-list", host)
}

// Publish opens a public port for a local one, waits until players can join, and
// returns the public port. Change may be nil.
func (d *DataPlane) Publish(protocol types.Protocol, local int, change func(*types.ClientAllocation)) int {
	d.T.Helper()
	d.Mu.Lock()
	a := types.ClientAllocation{
		ID: d.firstID + int64(len(d.Allocations)), Protocol: protocol, ServerID: d.Panel.Server,
		LocalHost: "127.0.0.1", LocalPort: local,
	}
	if change != nil {
		change(&a)
	}
	d.Allocations = append(d.Allocations, a)
	d.Mu.Unlock()
	port := relaytest.FreePort(d.T)
	allocation := relaytest.Allocation(a.ID, d.Client, protocol, port)
	allocation.Options = a.Options
	d.Panel.Put(allocation)
	d.Panel.AwaitReport(a.ID, types.ReportReady)
	d.Apply()
	d.AwaitReport(a.ID, types.ReportReady)
	return port
}

// Apply hands the desired state to the links.
func (d *DataPlane) Apply() {
	d.Mu.Lock()
	defer d.Mu.Unlock()
	d.Links.Apply(d.Servers, d.Allocations)
}

// AwaitReport waits until an allocation is reported to be in a state.
func (d *DataPlane) AwaitReport(id int64, state types.AllocationReportState) types.AllocationReport {
	d.T.Helper()
	return d.await(id, string(state), func(r types.AllocationReport) bool { return r.State == state })
}

// AwaitTarget waits until an allocation's target is reported to be in a state.
func (d *DataPlane) AwaitTarget(id int64, state types.TargetState) types.AllocationReport {
	d.T.Helper()
	return d.await(id, string(state), func(r types.AllocationReport) bool { return r.Target != nil && *r.Target == state })
}

func (d *DataPlane) await(id int64, what string, met func(types.AllocationReport) bool) types.AllocationReport {
	d.T.Helper()
	for {
		for _, r := range d.Links.Reports() {
			if r.ID == id && met(r) {
				return r
			}
		}
		select {
		case <-d.changed:
		case <-time.After(relaytest.Patience):
			d.T.Fatalf("allocation %d does not become %s: %+v", id, what, d.Links.Reports())
		}
	}
}

// Join connects a player to a public port.
func (d *DataPlane) Join(port int) *net.TCPConn {
	d.T.Helper()
	return DialTCP(d.T, "127.0.0.1", port)
}

// Greet connects a player to a public port whose game echoes, and awaits an answer.
func (d *DataPlane) Greet(port int) *net.TCPConn {
	d.T.Helper()
	player := d.Join(port)
	Write(d.T, player, "x")
	Expect(d.T, player, "x")
	return player
}
