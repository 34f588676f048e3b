package target_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// greeting is a game that sends back the first line that it is sent, and hears no UDP.
func greeting(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			line := make([]byte, 8)
			if n, err := io.ReadFull(conn, line); err == nil {
				_, _ = conn.Write(line[:n])
			}
			_ = conn.Close()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

func TestProbe_AsksWhatPlayersWouldReach(t *testing.T) {
	port := greeting(t)
	v1 := types.ProxyProtocolV1
	d := target.NewDialer(target.Options{Allow: func(host string, _ int) error {
		if host == "127.0.0.1" {
			return nil
		}
		return errors.New(host + " is not on the allow-list")
	}})
	d.SetAllocations([]types.ClientAllocation{
		{ID: 1, Protocol: types.ProtocolTCP, LocalHost: "127.0.0.1", LocalPort: port, Options: types.AllocationOptions{ProxyProtocol: &v1}},
		{ID: 2, Protocol: types.ProtocolTCP, LocalHost: "192.0.2.1", LocalPort: port},
	})
	probed := d.Probe(t.Context(), 1)
	// It answers to the PROXY header, before any query: that was sent.
	if !probed.Allowed || probed.TCP == nil || probed.TCP.State != types.ProbeAnswered || probed.UDP == nil || probed.UDP.State != types.ProbeRefused {
		t.Errorf("%+v: %+v, %+v", probed, probed.TCP, probed.UDP)
	}
	if probed := d.Probe(t.Context(), 2); probed.Allowed || probed.Reason == nil || !strings.Contains(*probed.Reason, "not on the allow-list") || probed.TCP != nil {
		t.Errorf("not allowed: %+v", probed)
	}
	if probed := d.Probe(t.Context(), 3); !probed.Allowed || probed.TCP != nil {
		t.Errorf("unknown: %+v", probed)
	}
}
