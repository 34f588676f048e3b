package controlclient_test

import (
	"context"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

func TestProbe_IsAnsweredWithoutHoldingUpTheChannel(t *testing.T) {
	begun, finish := make(chan types.Probe, 16), make(chan struct{})
	d := run(t, func(_ *device, o *options) {
		o.Probe = func(ctx context.Context, m types.Probe) types.ProbeResult {
			begun <- m
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return types.ProbeResult{Port: &types.ProbedPort{Open: true, Arrived: m.AllocationID}}
		}
	})
	p := await.Receive(t, d.channels, "control channel")
	if hello, ok := p.next().(types.Hello); !ok || hello.Probes == nil || !*hello.Probes {
		t.Fatalf("the first message is %+v", hello)
	}
	id := uuid.New()
	p.send(types.Probe{Type: types.TypeProbe, ID: id, Subject: types.ProbePort, AllocationID: 7})
	await.Receive(t, begun, "probe")
	p.snapshot(1)
	d.want(t)
	finish <- struct{}{}
	result, ok := p.next().(types.ProbeResult)
	if !ok || result.ID != id || result.Port == nil || result.Port.Arrived != 7 {
		t.Fatalf("received %+v", result)
	}
	// More than it does at a time: the rest is ignored, and Run ends them all.
	for i := range 6 {
		p.send(types.Probe{Type: types.TypeProbe, ID: uuid.New(), Subject: types.ProbePort, AllocationID: int64(i)})
	}
	p.snapshot(2, 5)
	d.want(t, 5)
	for range 4 {
		await.Receive(t, begun, "probe")
	}
	d.stop()
	if err := await.Receive(t, d.result, "end of Run"); err != nil {
		t.Error(err)
	}
	if len(begun) > 0 {
		t.Errorf("%d more probes were begun", len(begun))
	}
}

func TestProbe_IsNotAskedForWithoutOne(t *testing.T) {
	d := run(t, nil)
	p := await.Receive(t, d.channels, "control channel")
	if hello, ok := p.next().(types.Hello); !ok || hello.Probes != nil {
		t.Fatalf("the first message is %+v", hello)
	}
	p.send(types.Probe{Type: types.TypeProbe, ID: uuid.New(), Subject: types.ProbePort})
	p.snapshot(1, 3)
	d.want(t, 3)
}
