package db

import (
	"context"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db/batch"
)

const (
	// maxShared bounds the calls that share a statement, all of which it must serve in time, on a busy
	// machine too.
	maxShared = 100
	// maxAlone bounds the devices that connect at the same time with statements of their own. With
	// the batches they leave some of their lane's connections to others.
	maxAlone = 3
	// maxAloneServers bounds the tunnel servers that connect at the same time. Clients whose rows are
	// locked must not hold them up.
	maxAloneServers = 2
	// maxReports bounds the reports of several devices that share a statement: each device may report
	// on a thousand allocations.
	maxReports = 2000
)

// batches are the statements that concurrent calls share. After the death of a replica thousands of
// devices come at once. Each by itself would cost a round trip for each of its statements, and wait for
// a connection of the pool until its time was over.
type batches struct {
	pings         *batch.Batcher[struct{}, struct{}]
	settings      *batch.Batcher[struct{}, Settings]
	devices       *batch.Batcher[uuid.UUID, *Device]
	channels      *batch.Batcher[[]uuid.UUID, map[uuid.UUID]Channel]
	clientStates  *batch.Batcher[uuid.UUID, ClientState]
	connects      *batch.Batcher[connecting, int64]
	disconnects   *batch.Batcher[connection, struct{}]
	clientReports *batch.Batcher[deviceReports, struct{}]
	serverReports *batch.Batcher[deviceReports, struct{}]
	refusals      *batch.Batcher[serverRefusals, struct{}]
	connections   *batch.Batcher[serverConnections, struct{}]
	probes        *batch.Batcher[uuid.UUID, []Probe]

	alone        chan struct{} // Semaphore of maxAlone.
	aloneServers chan struct{} // Semaphore of maxAloneServers.
}

func newBatches(d *DB) batches {
	return batches{
		pings:         sharing(withoutResults(d.ping)),
		settings:      sharing(d.settings),
		devices:       sharing(d.devicesByID),
		channels:      sharing(d.channelsOf),
		clientStates:  sharing(d.clientStates),
		connects:      sharing(d.connectClients),
		disconnects:   sharing(withoutResults(d.disconnect)),
		clientReports: sharingReports(d, KindClient),
		serverReports: sharingReports(d, KindServer),
		refusals:      sharingRefusals(d),
		connections:   sharingConnections(d),
		probes:        sharing(d.takeProbes),
		alone:         make(chan struct{}, maxAlone),
		aloneServers:  make(chan struct{}, maxAloneServers),
	}
}

func sharing[In, Out any](run func(context.Context, []In) ([]Out, error)) *batch.Batcher[In, Out] {
	// While the server stalls, a call that waits for its batch ends with the batch before it. So it
	// ends in time, and yet may wait for as long as the server serves others.
	return batch.New(batch.Options[In, Out]{Run: run, Max: maxShared, Spreads: Unavailable})
}

func sharingReports(d *DB, kind string) *batch.Batcher[deviceReports, struct{}] {
	return batch.New(batch.Options[deviceReports, struct{}]{
		Run: withoutResults(func(ctx context.Context, reports []deviceReports) error {
			return d.saveReports(ctx, kind, reports)
		}),
		Max: maxReports,
		// Not more than maxShared devices either.
		Weight:  func(of deviceReports) int { return max(len(of.reports), maxReports/maxShared) },
		Spreads: Unavailable,
	})
}

func sharingRefusals(d *DB) *batch.Batcher[serverRefusals, struct{}] {
	return batch.New(batch.Options[serverRefusals, struct{}]{
		Run: withoutResults(d.addRefusals),
		Max: maxReports,
		// Not more than maxShared tunnel servers either.
		Weight:  func(of serverRefusals) int { return max(len(of.refusals), maxReports/maxShared) },
		Spreads: Unavailable,
	})
}

func sharingConnections(d *DB) *batch.Batcher[serverConnections, struct{}] {
	return batch.New(batch.Options[serverConnections, struct{}]{
		Run:     withoutResults(d.saveConnections),
		Max:     maxReports,
		Weight:  func(of serverConnections) int { return max(of.rows(), maxReports/maxShared) },
		Spreads: Unavailable,
	})
}

func withoutResults[In any](run func(context.Context, []In) error) func(context.Context, []In) ([]struct{}, error) {
	return func(ctx context.Context, calls []In) ([]struct{}, error) {
		return make([]struct{}, len(calls)), run(ctx, calls)
	}
}

// close waits for calls in progress.
func (b *batches) close() {
	b.pings.Close()
	b.settings.Close()
	b.devices.Close()
	b.channels.Close()
	b.clientStates.Close()
	b.connects.Close()
	b.disconnects.Close()
	b.clientReports.Close()
	b.serverReports.Close()
	b.refusals.Close()
	b.connections.Close()
	b.probes.Close()
}
