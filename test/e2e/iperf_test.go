package e2e

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// iperfReport is what is read here of iperf3's JSON.
type iperfReport struct {
	Error string `json:"error"`
	End   struct {
		SumReceived struct {
			Bytes         float64 `json:"bytes"`
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Sum struct {
			Packets     float64 `json:"packets"`
			LostPercent float64 `json:"lost_percent"`
			JitterMS    float64 `json:"jitter_ms"`
		} `json:"sum"`
	} `json:"end"`
}

// iperf3 opens a control connection over TCP and sends its datagrams to the
// same port: a game that wants both protocols on one port, in miniature.
func TestIperf3_BothProtocolsBothWays(t *testing.T) {
	w, port := sharedFor(t), freePort(t)
	serve(t, port, "iperf3", "-s", "-B", "127.0.0.1", "-p", strconv.Itoa(port))
	public := portOf(t, w.expose(t, types.CreateTCPUDP, port, nil))

	run := func(t *testing.T, args ...string) (report iperfReport) {
		t.Helper()
		args = append([]string{"-c", "127.0.0.1", "-p", public, "-t", "2", "-J"}, args...)
		// A server serves one at a time, and may hear of the end of the one before a
		// moment later than that has ended.
		await.Within(t, patience, "idle iperf3 server", func(context.Context) (bool, error) {
			out := command(t, patience, "iperf3", args...)
			report = iperfReport{}
			if err := json.Unmarshal([]byte(out), &report); err != nil {
				t.Fatal(err)
			}
			return !strings.Contains(report.Error, "busy"), nil
		})
		if report.Error != "" {
			t.Fatal(report.Error)
		}
		return report
	}
	for name, args := range map[string][]string{"up": nil, "down": {"-R"}, "four up": {"-P", "4"}} {
		t.Run("tcp "+name, func(t *testing.T) {
			report := run(t, args...)
			if report.End.SumReceived.Bytes < 1<<20 {
				t.Errorf("%.0f bytes arrived", report.End.SumReceived.Bytes)
			}
			t.Logf("%.0f Mbit/s", report.End.SumReceived.BitsPerSecond/1e6)
		})
	}
	// Twice the rate of a busy game server; on loopback next to nothing may get lost.
	for name, args := range map[string][]string{"up": {"-u"}, "down": {"-u", "-R"}} {
		t.Run("udp "+name, func(t *testing.T) {
			report := run(t, append(args, "-b", "20M", "-l", "1200")...)
			sum := report.End.Sum
			if sum.Packets < 2000 || sum.LostPercent > 5 {
				t.Errorf("of %.0f datagrams %.1f %% were lost", sum.Packets, sum.LostPercent)
			}
			t.Logf("%.0f datagrams, %.2f %% lost, jitter %.3f ms", sum.Packets, sum.LostPercent, sum.JitterMS)
		})
	}
}
