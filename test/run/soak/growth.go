//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// gauges are what must not grow for ever, by how it is called in /metrics, and
// how much more of it than before a process may have at the end: so many times
// as much, and this besides.
var gauges = []struct {
	metric, name string
	factor, more float64
}{
	{"process_resident_memory_bytes", "memory", 1.5, 48 << 20},
	{"go_goroutines", "goroutines", 1.5, 100},
	{"process_open_fds", "open files", 1.5, 100},
}

// size is how large the processes are: by place, then by gauge.
type size map[string]map[string]float64

// weigh asks every program how large it is.
func (fl *fleet) weigh(ctx context.Context) (size, error) {
	s := size{}
	places := append([]*place{}, fl.hosts...)
	for _, d := range fl.devices() {
		places = append(places, d.place)
	}
	for _, p := range places {
		values, err := scrape(ctx, p.on(metricsPort))
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", p.name, err)
		}
		s[p.name] = values
	}
	return s, nil
}

func scrape(ctx context.Context, addr string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	values := map[string]float64{}
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		for _, g := range gauges {
			if g.metric == name {
				if values[name], err = strconv.ParseFloat(value, 64); err != nil {
					return nil, err
				}
			}
		}
	}
	return values, nil
}

// grown finds what has grown too much since.
func grown(before, after size) []string {
	var found []string
	for place, values := range after {
		for _, g := range gauges {
			was, is := before[place][g.metric], values[g.metric]
			if is > was*g.factor+g.more {
				found = append(found, fmt.Sprintf("%s: %s grew from %.0f to %.0f", place, g.name, was, is))
			}
		}
	}
	return found
}
