package tunnel_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Cut off whoever is connected from a network, and keep them out for an hour.
func ExampleClient_EachConnection() {
	panel := startPanel()
	defer panel.Close()
	client := newAdminClient(panel)
	defer client.Close()
	ctx := context.Background()

	network := types.AddressPrefix("203.0.113.0/24")
	hour := int(time.Hour / time.Second)
	for player, err := range client.EachConnection(ctx, types.ListConnectionsParams{SourceAddress: &network}) {
		if err != nil {
			log.Fatal(err)
		}
		err = client.CloseConnection(ctx, player.ID, types.CloseConnectionParams{KeepOutSeconds: &hour})
		if err != nil && !tunnel.HasCode(err, types.CodeNotFound) { // They may have left.
			log.Fatal(err)
		}
		fmt.Printf("%s, who got %d bytes\n", player.SourceAddress, player.DownloadBytes)
	}
	// Output: 203.0.113.60, who got 7340032 bytes
}

// Print what each device has carried on the last day.
func ExampleClient_Usage() {
	panel := startPanel()
	defer panel.Close()
	client := newAdminClient(panel)
	defer client.Close()

	by := types.UsageGroupingDevice
	usage, err := client.Usage(context.Background(), types.GetUsageParams{By: &by})
	if err != nil {
		log.Fatal(err)
	}
	for _, series := range usage.Series {
		total := series.Totals
		fmt.Printf("%d bytes to %d players, at most %d at once\n", total.DownloadBytes, total.Joins, total.PeakPlayers)
	}
	// Output: 7340032 bytes to 3 players, at most 2 at once
}

// The type of an event's value tells what happened.
func ExampleEvent_Value() {
	follow := func(ctx context.Context, client *tunnel.Client) error {
		for event, err := range client.Events(ctx, tunnel.EventOptions{Types: []string{"connection", "usage"}}) {
			if err != nil {
				return err
			}
			value, err := event.Value()
			if err != nil {
				return err
			}
			switch e := value.(type) {
			case types.ConnectionEvent:
				fmt.Println(e.Type, e.Connection.SourceAddress)
			case types.UsageEvent:
				for _, u := range e.Usage {
					fmt.Println(u.AllocationID, u.Players)
				}
			}
		}
		return nil
	}
	_ = follow
}
