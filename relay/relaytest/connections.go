package relaytest

import (
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// connections are the players that a tunnel server has reported on its control channel.
type connections struct {
	open     map[string]types.OpenedConnection
	ended    map[string]types.ConnectionCounters
	complete bool // The tunnel server has reported all that there were.
	reports  int
}

func newConnections() connections {
	return connections{open: map[string]types.OpenedConnection{}, ended: map[string]types.ConnectionCounters{}}
}

// take adds a report. Whatever is reported of a connection must come after it was opened.
func (c *connections) take(m types.ConnectionsReport) (unknown []string) {
	c.reports++
	for _, o := range m.Opened {
		c.open[o.ID] = o
	}
	for _, n := range m.Updated {
		o, ok := c.open[n.ID]
		if !ok {
			unknown = append(unknown, n.ID)
			continue
		}
		o.DownloadBytes, o.UploadBytes = n.DownloadBytes, n.UploadBytes
		o.PlayerRoundTripMs, o.TunnelRoundTripMs = n.PlayerRoundTripMs, n.TunnelRoundTripMs
		c.open[n.ID] = o
	}
	for _, n := range m.Closed {
		if _, ok := c.open[n.ID]; !ok {
			unknown = append(unknown, n.ID)
		}
		delete(c.open, n.ID)
		c.ended[n.ID] = n
	}
	c.complete = c.complete || m.Complete != nil && *m.Complete
	return unknown
}

// AwaitConnections returns once the tunnel server has reported all players on this control
// channel, and there are n, by their ids.
func (p *Panel) AwaitConnections(n int) map[string]types.OpenedConnection {
	p.t.Helper()
	open := map[string]types.OpenedConnection{}
	p.await("the players", func() bool {
		if !p.connections.complete || len(p.connections.open) != n {
			return false
		}
		for id, o := range p.connections.open {
			open[id] = o
		}
		return true
	})
	return open
}

// AwaitEnd returns once the tunnel server has reported the end of a connection, with what
// it has carried.
func (p *Panel) AwaitEnd(id string) types.ConnectionCounters {
	p.t.Helper()
	var end types.ConnectionCounters
	p.await("the end of a connection", func() (ok bool) {
		end, ok = p.connections.ended[id]
		return ok
	})
	return end
}

// ConnectionReports returns how many reports of players there were on this control channel,
// and how many connections they had.
func (p *Panel) ConnectionReports() (reports, connections int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connections.reports, len(p.connections.open) + len(p.connections.ended)
}

// CloseConnections has the tunnel server end connections.
func (p *Panel) CloseConnections(ids ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		_ = p.conn.Send(types.ConnectionsClose{Type: types.TypeConnectionsClose, Ids: ids})
	}
}

// TakeNoConnections makes this a panel from before tunnel servers reported players.
func (p *Panel) TakeNoConnections() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takes = false
}
