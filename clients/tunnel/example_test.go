package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// The examples talk to startPanel's panel, which runs in memory. Use the address of
// your own panel, such as https://panel.example.com.

// Log in, and open a public port for a device.
func Example() {
	panel := startPanel()
	defer panel.Close()
	ctx := context.Background()

	var token string
	client, err := tunnel.New(tunnel.Options{
		PanelURL: panel.URL,
		Token:    func() string { return token },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	login, err := client.Login(ctx, "ada@example.com", "correct horse battery staple")
	if err != nil {
		log.Fatal(err)
	}
	token = login.Token // The requests that follow send it.

	devices, err := client.Devices(ctx)
	if err != nil {
		log.Fatal(err)
	}
	port := 25565 // Without Port, the panel chooses one.
	allocations, err := client.CreateAllocation(ctx, types.AllocationCreate{
		DeviceID:  &devices[0].ID,
		Protocol:  types.CreateTCP,
		LocalPort: 25565,
		Port:      &port,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s leads to port %d of %s\n", allocations[0].PublicAddress, allocations[0].LocalPort, devices[0].Name)
	// Output: play.example.com:25565 leads to port 25565 of gaming-rig
}

// Act as a device, with the device's own token.
func ExampleClient() {
	panel := startPanel()
	defer panel.Close()

	client, err := tunnel.New(tunnel.Options{
		PanelURL: panel.URL,
		Token:    func() string { return panel.DeviceToken },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	// A device allocates for itself and needs no DeviceID.
	created, err := client.CreateAllocation(context.Background(), types.AllocationCreate{
		Protocol:  types.CreateUDP,
		LocalPort: 2456,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(created[0].Protocol, created[0].PublicAddress)
	// Output: udp play.example.com:20000
}

// Give each attempt of a request five seconds, through no proxy, and name the program.
func ExampleOptions() {
	panel := startPanel()
	defer panel.Close()

	client, err := tunnel.New(tunnel.Options{
		PanelURL:   panel.URL,
		Token:      func() string { return "session-token" },
		HTTPClient: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{Proxy: nil}},
		UserAgent:  "billing/1.0",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	session, err := client.Session(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(session.User.Email, session.User.Role)
	// Output: ada@example.com admin
}

// Enroll this machine: show the user code, then poll until an admin has approved it.
func ExampleClient_StartEnrollment() {
	panel := startPanel()
	defer panel.Close()
	ctx := context.Background()

	// Without a token, the admin who approves the device decides whose it is.
	client, err := tunnel.New(tunnel.Options{PanelURL: panel.URL})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	enrollment, err := client.StartEnrollment(ctx, types.EnrollmentStart{Name: "gaming-rig"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("Open %s and enter %s.\n", enrollment.VerificationURI, enrollment.UserCode)

	approveAsAdmin(panel, enrollment.UserCode) // Usually in the console; see Client.Approve.

	interval := time.Duration(enrollment.Interval) * time.Second
	for {
		status, err := client.PollEnrollment(ctx, enrollment.DeviceCode)
		switch {
		case tunnel.HasCode(err, types.CodeSlowDown):
			interval += 5 * time.Second // RFC 8628 section 3.5.
		case err != nil:
			log.Fatal(err) // With enrollment_expired, start again.
		case status.Token != nil:
			id, err := tunnel.DeviceID(*status.Token)
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println("Enrolled as", id)
			return
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return
		}
	}
	// Output:
	// Open https://panel.example.com/device and enter CDFG-2345.
	// Enrolled as 3f0e2a6c-6f0b-4c0e-9f57-0d6f3c2f9a11
}

// Approve a device with the code that it shows. The client needs an admin's session.
func ExampleClient_Approve() {
	panel := startPanel()
	defer panel.Close()
	client := newAdminClient(panel)
	defer client.Close()

	device, err := client.Approve(context.Background(), types.DeviceApproval{UserCode: "bcdf2345"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("approved", device.Name)
	// Output: approved gaming-rig
}

// Open one public port for TCP and UDP, and wait until players can join.
func ExampleClient_CreateAllocation() {
	panel := startPanel()
	defer panel.Close()
	client := newAdminClient(panel)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	proxyProtocol := types.ProxyProtocolV2 // Tells the game the players' addresses.
	created, err := client.CreateAllocation(ctx, types.AllocationCreate{
		DeviceID:  &exampleDevice,
		Protocol:  types.CreateTCPUDP,
		LocalPort: 2456,
		Options:   &types.AllocationOptions{ProxyProtocol: &proxyProtocol},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, allocation := range created {
		for {
			allocation, err = client.Allocation(ctx, allocation.ID)
			if err != nil {
				log.Fatal(err)
			}
			if allocation.Status != types.AllocationPending {
				break
			}
			select {
			case <-time.After(250 * time.Millisecond):
			case <-ctx.Done():
				log.Fatal(ctx.Err())
			}
		}
		fmt.Println(allocation.Protocol, allocation.PublicAddress, allocation.Status)
	}
	// Output:
	// tcp play.example.com:20000 listening
	// udp play.example.com:20000 listening
}

// List more allocations than one answer of the panel holds.
func ExampleClient_Allocations() {
	panel := startPanel()
	defer panel.Close()
	panel.allocate(2500)
	client := newAdminClient(panel)
	defer client.Close()

	allocations, err := client.Allocations(context.Background()) // Three requests.
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(allocations), "allocations")
	fmt.Println("newest:", allocations[0].ID)
	fmt.Println("oldest:", allocations[len(allocations)-1].ID)
	// Output:
	// 2500 allocations
	// newest: 2500
	// oldest: 1
}

// Read what the panel says about a request that it refuses.
func ExampleError() {
	panel := startPanel()
	defer panel.Close()
	client := newAdminClient(panel)
	defer client.Close()

	_, err := client.CreateAllocation(context.Background(), types.AllocationCreate{
		DeviceID:  &exampleDevice,
		Protocol:  types.CreateTCP,
		LocalPort: 70000,
	})
	var answer *tunnel.Error
	if errors.As(err, &answer) {
		fmt.Println(answer.Status, answer.Code)
		for _, detail := range answer.Details {
			fmt.Printf("%s: %s\n", detail.Field, detail.Message)
		}
		fmt.Println("in the panel's log:", answer.RequestID)
	}
	// Output:
	// 400 invalid_request
	// localPort: number must be at most 65535
	// in the panel's log: 01JCZ4Q6
}

// Take any port if the preferred one is taken.
func ExampleHasCode() {
	panel := startPanel()
	defer panel.Close()
	panel.allocate(1)
	client := newAdminClient(panel)
	defer client.Close()

	port := 20000
	request := types.AllocationCreate{DeviceID: &exampleDevice, Protocol: types.CreateTCP, LocalPort: 25565, Port: &port}
	created, err := client.CreateAllocation(context.Background(), request)
	if tunnel.HasCode(err, types.CodePortTaken) {
		request.Port = nil
		created, err = client.CreateAllocation(context.Background(), request)
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(created[0].Port)
	// Output: 20001
}

// Tell a panel that is down from one that refuses a request.
func ExampleUnreachableError() {
	panel := startPanel()
	client := newAdminClient(panel)
	defer client.Close()
	panel.Close()

	_, err := client.Login(context.Background(), "ada@example.com", "wrong")
	var answer *tunnel.Error
	var unreachable *tunnel.UnreachableError
	switch {
	case errors.As(err, &answer):
		fmt.Println("refused:", answer.Code)
	case errors.As(err, &unreachable):
		fmt.Println("unreachable:", unreachable.Reason)
	}
	// Output: unreachable: connection refused; nothing listens there
}

// Check an address that a person has typed.
func ExampleParsePanelURL() {
	for _, address := range []string{" https://panel.example.com/ ", "panel.example.com"} {
		panel, err := tunnel.ParsePanelURL(address)
		if err != nil {
			fmt.Println("error:", err)
			continue
		}
		fmt.Println(panel)
	}
	// Output:
	// https://panel.example.com
	// error: "panel.example.com" is not a panel's address; write it as https://panel.example.com
}

// newAdminClient returns a client with an admin's session.
func newAdminClient(panel *examplePanel) *tunnel.Client {
	client, err := tunnel.New(tunnel.Options{
		PanelURL: panel.URL,
		Token:    func() string { return "session-token" }, // From Client.Login.
	})
	if err != nil {
		log.Fatal(err)
	}
	return client
}

func approveAsAdmin(panel *examplePanel, userCode string) {
	client := newAdminClient(panel)
	defer client.Close()
	if _, err := client.Approve(context.Background(), types.DeviceApproval{UserCode: userCode}); err != nil {
		log.Fatal(err)
	}
}

// A sequence fetches pages as they are needed. Leaving the loop leaves the rest unread.
func ExampleClient_EachAllocation() {
	panel := startPanel()
	defer panel.Close()
	panel.allocate(3)
	client := newAdminClient(panel)
	defer client.Close()

	limit := 100 // The size of a page.
	for allocation, err := range client.EachAllocation(context.Background(), types.ListAllocationsParams{Limit: &limit}) {
		if err != nil {
			log.Fatal(err)
		}
		if allocation.Port == 20001 {
			fmt.Println("found", allocation.PublicAddress)
			break
		}
	}
	// Output: found play.example.com:20001
}

// A change takes place only if nobody else has changed the allocation in the meantime.
func ExampleIfMatch() {
	rename := func(ctx context.Context, client *tunnel.Client, id types.AllocationID, name string) error {
		for {
			var tag string
			if _, err := client.Allocation(ctx, id, tunnel.ReadETag(&tag)); err != nil {
				return err
			}
			_, err := client.UpdateAllocation(ctx, id, types.AllocationPatch{Name: &name}, tunnel.IfMatch(tag))
			if !tunnel.HasCode(err, "precondition_failed") {
				return err
			}
		}
	}
	_ = rename
}

// Events tell what changes, from now on, over connections that break.
func ExampleClient_Events() {
	follow := func(ctx context.Context, client *tunnel.Client) error {
		for event, err := range client.Events(ctx, tunnel.EventOptions{Types: []string{"allocation"}}) {
			if err != nil {
				return err // ctx has ended, or the panel refuses the stream.
			}
			switch event.Type {
			case tunnel.EventReady, tunnel.EventResync:
				// Read everything that is shown; the events that follow are later than that.
			case "allocation.updated":
				var updated struct{ Allocation types.Allocation }
				if err := event.Decode(&updated); err != nil {
					return err
				}
				fmt.Println(updated.Allocation.PublicAddress, updated.Allocation.Status)
			}
		}
		return nil
	}
	_ = follow
}
