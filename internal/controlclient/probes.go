package controlclient

import (
	"context"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

const (
	// maxProbes bounds the probes of a channel at a time. Further ones are ignored.
	maxProbes = 4
	// probeTimeout bounds a probe.
	probeTimeout = 5 * time.Second
)

// probes are those that the panel has asked for on one channel.
type probes struct {
	do   func(context.Context, types.Probe) types.ProbeResult // nil: there are none.
	conn *channel.Conn
	free chan struct{} // Semaphore of maxProbes.

	wait sync.WaitGroup
}

func newProbes(conn *channel.Conn, do func(context.Context, types.Probe) types.ProbeResult) *probes {
	return &probes{do: do, conn: conn, free: make(chan struct{}, maxProbes)}
}

// start begins a probe, and does not wait for it. It ends with ctx.
func (p *probes) start(ctx context.Context, m types.Probe) {
	if p.do == nil {
		return
	}
	select {
	case p.free <- struct{}{}:
	default:
		return
	}
	p.wait.Go(func() {
		defer func() { <-p.free }()
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		result := p.do(ctx, m)
		result.Type, result.ID = types.TypeProbeResult, m.ID
		// An error means that the channel has ended.
		_ = p.conn.Send(result)
	})
}
