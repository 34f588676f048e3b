package controlclient_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// noted notes the calls of a client in order.
type noted chan string

func (n noted) StartConnections() { n <- "start" }
func (n noted) StopConnections()  { n <- "stop" }
func (n noted) NextConnections() *types.ConnectionsReport {
	n <- "next"
	return nil
}
func (n noted) CloseConnections([]string) { n <- "close" }

func TestReportConnections_StartsAndStopsWithAChannelThatTakesThem(t *testing.T) {
	calls := make(noted, 64)
	d := run(t, func(_ *device, o *options) { o.Connections = calls })
	want := func(call string) {
		t.Helper()
		if got := await.Receive(t, calls, call); got != call {
			t.Fatalf("%s, want %s", got, call)
		}
	}
	takes := true
	for range 2 {
		p := d.next(t)
		d.ReportConnections() // There is no state yet.
		d.is(ready(1))
		p.send(types.ServerSnapshot{
			Type: types.TypeServerSnapshot, Revision: 1, Allocations: allocations([]int64{1}),
			Clients: []types.ServerClient{}, Keys: types.JWKS{Keys: []types.JWK{}}, Connections: &takes,
		})
		wantReport(t, p, 1, 1) // The state is applied.
		d.ReportConnections()
		d.ReportConnections()
		want("start")
		want("next")
		want("next")
		p.Close(channel.CloseRestarting, "")
		want("stop")
	}
	d.ReportConnections() // No channel.
	p := d.next(t)
	p.snapshot(1) // This panel takes none.
	p.Close(channel.CloseRestarting, "")
	d.next(t)
	if len(calls) > 0 {
		t.Errorf("%s for a panel that takes no reports", <-calls)
	}
}
