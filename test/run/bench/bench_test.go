//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/role"
)

func TestMain(m *testing.M) {
	// What a run starts as processes of their own is this binary, and so is the
	// game that a peer leads to.
	role.Main("bench", roles())
	if addr := os.Getenv(standIn); addr != "" {
		role.Exit("stand-in", playStandIn(addr))
	}
	goleak.VerifyTestMain(m)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ends has something end with the test.
func ends(t *testing.T, end func() error) { t.Cleanup(func() { check(t, end()) }) }

// inProcess is what a run starts as processes of their own, in this one.
func inProcess(t *testing.T) []subject {
	t.Helper()
	addr, stop, err := playGame(t.Context(), "127.0.0.1:0")
	check(t, err)
	ends(t, stop)
	start := func(o hopOptions) endpoints {
		at, stop, err := startHop(t.Context(), o)
		check(t, err)
		ends(t, stop)
		return at
	}
	game := endpoints{Splice: addr, Copy: addr, UDP: addr}
	outer := start(hopOptions{Next: start(hopOptions{Next: game})})
	outerTLS := start(hopOptions{Next: start(hopOptions{Next: game, AcceptTLS: true}), DialTLS: true})
	self := []int{os.Getpid()}
	return []subject{
		{name: direct, tcp: addr, udp: addr},
		{name: hop2, tcp: outer.Splice, udp: outer.UDP, pids: self},
		{name: hopCopy, tcp: outer.Copy, pids: self, streamsOnly: true},
		{name: hopTLS, tcp: outerTLS.Splice, pids: self},
	}
}

func TestBench_MeasuresEverythingAndVerifiesIt(t *testing.T) {
	var o options
	check(t, o.choose(nil))
	o.Rounds, o.Duration, o.Brief, o.Idle, o.Flows, o.Foreign = 1, 40*time.Millisecond, true, 20, []int{50}, anyShare
	subjects := inProcess(t)
	var progress bytes.Buffer
	b := bench{options: o, progress: &progress}
	var r report
	if err := b.rounds(t.Context(), b.measures(anywhere), subjects, &r); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	for _, f := range r.Failures {
		if !f.Fatal {
			continue // A busy machine proves nothing about the bench.
		}
		t.Errorf("%s of %s: %s", f.Measure, f.Subject, f.Reason)
	}
	for _, m := range b.measures(anywhere) {
		for _, s := range subjects {
			taken := strings.Contains(progress.String(), progressLine(1, 1, m.name, s.name))
			if taken != m.applies(s) {
				t.Errorf("%s of %s: taken %v", m.name, s.name, taken)
			}
		}
	}
	hasValue(t, r, "udp-flows-50", hop2, 50)
	hasValue(t, r, "half-close", hopTLS, 1)
	hasValue(t, r, "stalled-reader", hop2, 0)
}

// TestBench_MeasuresOverNetworksOfItsOwn takes root. It measures the plain
// proxies, and ours where binaries have been built.
func TestBench_MeasuresOverNetworksOfItsOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("makes networks")
	}
	if err := cluster.CanPlace(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no network can be made: %v", err)
		}
		t.Skipf("no network can be made: %v", err)
	}
	o := options{Bin: os.Getenv("ECLITUNNEL_BIN"), Uplink: uplinkOwn, Procs: []int{1}}
	subjects := []string{direct, hop2}
	if o.Bin != "" {
		subjects = append(subjects, oursProcs+"1")
	}
	check(t, o.choose(append([]string{"loss", "uplink"}, subjects...)))
	o.Rounds, o.Duration, o.Brief, o.Foreign = 1, 700*time.Millisecond, true, anyShare
	r, err := benchmark(t.Context(), o, t.Output())
	check(t, err)
	for _, f := range r.Failures {
		if f.Fatal {
			t.Errorf("%s of %s: %s", f.Measure, f.Subject, f.Reason)
		}
	}
	for _, name := range subjects {
		for _, id := range []string{"uplink-tcp-p99", "uplink-udp-p50", "uplink-rate"} {
			if value(t, r, id, name) <= 0 {
				t.Errorf("%s of %s is nothing", id, name)
			}
		}
		if name != direct { // Its game is out of reach from the other end of the cable.
			checkLoss(t, r, name)
		}
	}
}

// TestRun_ShortFormMeasuresOursAndPrintsIt is the whole program, with
// the binaries that have been built.
func TestRun_ShortFormMeasuresOursAndPrintsIt(t *testing.T) {
	bin := os.Getenv("ECLITUNNEL_BIN")
	if bin == "" {
		t.Skip("ECLITUNNEL_BIN names no binaries")
	}
	file := filepath.Join(t.TempDir(), "run.json")
	var table bytes.Buffer
	err := run(t.Context(), []string{
		"--short", "--bin", bin, "--uplink", "off", "--json", file,
		"--only", "hop2,ours,ours-limited,ours-plain,download,joins,udp-rtt,half-close",
	}, &table, t.Output())
	check(t, err)
	data, err := os.ReadFile(file)
	check(t, err)
	var r report
	check(t, json.Unmarshal(data, &r))
	for _, name := range []string{hop2, ours, oursLimited, oursPlain} {
		if value(t, r, "download", name) <= 0 || value(t, r, "joins", name) <= 0 {
			t.Errorf("%s moves nothing", name)
		}
		hasValue(t, r, "half-close", name, 1)
	}
	for _, name := range []string{ours, oursLimited} {
		if value(t, r, "udp-rtt-p50", name) <= 0 {
			t.Errorf("no datagram comes back by %s", name)
		}
	}
	var again bytes.Buffer
	check(t, run(t.Context(), []string{"--from", file}, &again, t.Output()))
	if again.String() != table.String() || !strings.Contains(table.String(), "half-close passed on") {
		t.Errorf("printed first\n%s\nand then\n%s", &table, &again)
	}
}

// checkLoss checks what can be said of how a subject stands packets that get lost.
func checkLoss(t *testing.T, r report, name string) {
	t.Helper()
	for _, percent := range losses {
		at := func(what string) float64 { return value(t, r, lossMetric(percent, what), name) }
		p50, p99, answered := at("p50"), at("p99"), at("answered")
		if p50 <= 0 || p99 < p50 || answered < 50 || answered > 100 {
			t.Errorf("%s at %d %% lost: p50 %v µs, p99 %v µs, %v %% answered", name, percent, p50, p99, answered)
		}
		if percent > 0 && at("ratio") <= 0 {
			t.Errorf("%s at %d %% lost is not compared", name, percent)
		}
		// By chance it happens once in ten million times.
		if percent == 3 && answered == 100 {
			t.Errorf("%s: nothing is lost", name)
		}
	}
}

func hasValue(t *testing.T, r report, id, subject string, want float64) {
	t.Helper()
	if got := value(t, r, id, subject); got != want {
		t.Errorf("%s of %s is %v, want %v", id, subject, got, want)
	}
}

func value(t *testing.T, r report, id, subject string) float64 {
	t.Helper()
	for _, result := range r.Results {
		if result.Metric == id && result.Subject == subject {
			return result.Median
		}
	}
	t.Errorf("%s of %s was not measured", id, subject)
	return 0
}

func TestParse_ChoosesSubjectsAndMeasuresByName(t *testing.T) {
	var usage bytes.Buffer
	f, err := parse([]string{
		"--only", "frp,chisel,hop2,rtt,joins", "--peer", "chisel=peers/chisel", "--peer", "frp=peers/frp",
	}, &usage)
	check(t, err)
	if got := strings.Join(f.Subjects, " "); got != "frp chisel hop2" {
		t.Errorf("subjects: %s", got)
	}
	if got := strings.Join(f.Measures, " "); got != "rtt-idle rtt-busy joins" {
		t.Errorf("measures: %s", got)
	}
}

func TestParse_RefusesWhatMakesNoRun(t *testing.T) {
	for _, args := range [][]string{
		{"--only", "chisel"},
		{"--rounds", "0"},
		{"--duration", "1ms"},
		{"--uplink", "there"},
		{"--flows", "many"},
		{"--peer", "frp"},
		{"--peer", "=peers/frp"},
		{"--peer", "frp=a", "--peer", "frp=b"},
		{"hop2"},
	} {
		if _, err := parse(args, new(bytes.Buffer)); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}

// lossy is a proxy that changes one byte of every stream from the game and cuts
// every datagram: what no tunnel may do.
type lossy struct{ tcp, udp string }

// wrongAt is where in a stream the byte is.
const wrongAt = 100_000

func startLossy(t *testing.T, game string) lossy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	check(t, err)
	var done sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		udp.Close()
		done.Wait()
	})
	done.Go(func() {
		for {
			player, err := listener.Accept()
			if err != nil {
				return
			}
			done.Go(func() { carryWrongly(&done, player, game) })
		}
	})
	done.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			udp.WriteTo(buf[:n-1], from) //nolint:errcheck // the bench sees what is lost
		}
	})
	return lossy{listener.Addr().String(), udp.LocalAddr().String()}
}

func carryWrongly(done *sync.WaitGroup, player net.Conn, game string) {
	defer player.Close()
	local, err := net.Dial("tcp", game)
	if err != nil {
		return
	}
	defer local.Close()
	done.Go(func() {
		io.Copy(local, player) //nolint:errcheck // the bench sees what is lost
		local.Close()
	})
	buf := make([]byte, 64<<10)
	for position := 0; ; {
		n, err := local.Read(buf)
		if err != nil {
			return
		}
		if position <= wrongAt && wrongAt < position+n {
			buf[wrongAt-position] ^= 1
		}
		position += n
		if _, err := player.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestBench_FailsATunnelThatChangesWhatItCarries(t *testing.T) {
	wrong := startLossy(t, inProcess(t)[0].tcp)
	s := subject{name: "wrong", tcp: wrong.tcp, udp: wrong.udp, pids: []int{os.Getpid()}}
	for _, m := range measures {
		if !slices.Contains([]string{"download", "download8", "udp-rtt", "udp-load", "udp-flows", "udp-offered"}, m.name) {
			continue
		}
		taken := &sample{settings: settings{Duration: 40 * time.Millisecond, Idle: 1, Flows: []int{1}}, subject: s, values: map[string]float64{}}
		if err := m.run(t.Context(), taken); err == nil {
			t.Errorf("%s found nothing wrong: %v", m.name, taken.values)
		}
	}
}
