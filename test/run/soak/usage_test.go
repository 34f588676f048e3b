//go:build linux

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

func TestAccount_FindsBytesThatAreMissingOrCountedTwice(t *testing.T) {
	sums := func(upload, download int64) types.UsageSums {
		return types.UsageSums{UploadBytes: upload, DownloadBytes: download}
	}
	for _, c := range []struct {
		usage types.UsageSums
		wrong string
	}{
		{sums(100, 201), ""},
		{sums(105, 207), ""},
		{sums(99, 201), "upload of 99 bytes"},
		{sums(106, 201), "upload of 106 bytes"},
		{sums(100, 200), "download of 200 bytes"},
		{sums(100, 208), "download of 208 bytes"},
	} {
		a := new(account)
		a.add(traffic.Carried{UploadLeast: 100, UploadMost: 100, DownloadLeast: 200, DownloadMost: 200})
		a.add(traffic.Carried{UploadMost: 5, DownloadLeast: 1, DownloadMost: 7}) // One who was cut off.
		if _, _, got := a.settle(c.usage); (got == "") != (c.wrong == "") || !strings.HasPrefix(got, c.wrong) {
			t.Errorf("%d up and %d down: %q, want %q", c.usage.UploadBytes, c.usage.DownloadBytes, got, c.wrong)
		}
		if _, _, got := a.settle(c.usage); got != "" {
			t.Errorf("once it was compared: %q", got)
		}
		c.usage.UploadBytes++
		if _, _, got := a.settle(c.usage); !strings.HasPrefix(got, "upload of 1 bytes") {
			t.Errorf("counted after it was compared: %q", got)
		}
	}
}

func TestUsage_ForgivesTheLastIntervalOfKilledTunnelServers(t *testing.T) {
	now := time.Now()
	carried := traffic.Carried{UploadLeast: 10, UploadMost: 10, DownloadLeast: 10, DownloadMost: 10}
	killed, other := new(device), new(device)
	p := &port{server: killed}
	for _, ago := range []time.Duration{100, 40, 12, 10, 5} {
		p.account.rows = append(p.account.rows, carriedAt{now.Add(-ago * time.Second), carried})
	}
	u := new(usage)
	u.open(p)
	for _, c := range []struct {
		device *device
		want   uint64
	}{
		{other, 0},
		{killed, 20},
		{killed, 20}, // Nothing is lost twice.
	} {
		if u.killed(c.device, now); p.account.lost.upload != c.want || p.account.lost.download != c.want {
			t.Errorf("%+v may be lost, want %d each way", p.account.lost, c.want)
		}
	}
}
