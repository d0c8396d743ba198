// Drives the unmodified cloud.google.com/go/run, over gRPC and over REST, against the API alone.
//
//	sdk SERVE_EXAMPLE
//
// SERVE_EXAMPLE is crates/api/examples/serve.rs, built.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"sort"
	"strings"
	"time"

	iampb "cloud.google.com/go/iam/apiv1/iampb"
	run "cloud.google.com/go/run/apiv2"
	"cloud.google.com/go/run/apiv2/runpb"
	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

const (
	parent = "projects/demo/locations/us-central1"
	name   = parent + "/services/hello"
)

// bearer adds the token to each call, whichever way it goes.
type bearer string

func (token bearer) header() string { return "Bearer " + string(token) }

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": token.header()}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

func (token bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", token.header())
	return http.DefaultTransport.RoundTrip(request)
}

// clients are the API's, over one transport.
type clients struct {
	services  *run.ServicesClient
	revisions *run.RevisionsClient
}

func connect(ctx context.Context, transport, address, token string) (clients, error) {
	var all clients
	var err, more error
	if transport == "rest" {
		options := []option.ClientOption{
			option.WithEndpoint("http://" + address),
			option.WithHTTPClient(&http.Client{Transport: bearer(token)}),
		}
		all.services, err = run.NewServicesRESTClient(ctx, options...)
		all.revisions, more = run.NewRevisionsRESTClient(ctx, options...)
	} else {
		options := []option.ClientOption{
			option.WithEndpoint(address),
			option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
			option.WithGRPCDialOption(grpc.WithPerRPCCredentials(bearer(token))),
		}
		all.services, err = run.NewServicesClient(ctx, options...)
		all.revisions, more = run.NewRevisionsClient(ctx, options...)
	}
	return all, errors.Join(err, more)
}

func expect(got, wanted any) error {
	if reflect.DeepEqual(got, wanted) {
		return nil
	}
	return fmt.Errorf("got %v, wanted %v", got, wanted)
}

// fails looks at the error that a call must end in.
func fails(err error, code codes.Code, status int) error {
	var known *apierror.APIError
	if !errors.As(err, &known) {
		return fmt.Errorf("%v is no error of the API", err)
	}
	if known.GRPCStatus().Code() == code || known.HTTPCode() == status {
		return nil
	}
	return fmt.Errorf("%v is not %v", err, code)
}

func wanted(image string) *runpb.Service {
	return &runpb.Service{
		Description: "says hello",
		Labels:      map[string]string{"team": "a"},
		Template: &runpb.RevisionTemplate{
			Timeout:                       durationpb.New(time.Minute),
			MaxInstanceRequestConcurrency: 5,
			Containers:                    []*runpb.Container{{Image: image}},
		},
	}
}

func create(ctx context.Context, c clients) error {
	request := &runpb.CreateServiceRequest{Parent: parent, Service: wanted("hello"), ServiceId: "hello"}
	operation, err := c.services.CreateService(ctx, request)
	if err != nil {
		return err
	}
	made, err := operation.Wait(ctx)
	if err != nil {
		return err
	}
	if err := expect(made.GetName(), name); err != nil {
		return err
	}
	_, err = c.services.CreateService(ctx, request)
	return fails(err, codes.AlreadyExists, http.StatusConflict)
}

func get(ctx context.Context, c clients) error {
	got, err := c.services.GetService(ctx, &runpb.GetServiceRequest{Name: name})
	if err != nil {
		return err
	}
	return errors.Join(
		expect(got.GetLabels(), map[string]string{"team": "a"}),
		expect(got.GetGeneration(), int64(1)),
		expect(got.GetTemplate().GetTimeout().AsDuration(), time.Minute),
		expect(got.GetTerminalCondition().GetState(), runpb.Condition_CONDITION_SUCCEEDED),
	)
}

func update(ctx context.Context, c clients) error {
	request := &runpb.UpdateServiceRequest{
		Service: &runpb.Service{
			Name:     name,
			Template: &runpb.RevisionTemplate{MaxInstanceRequestConcurrency: 9},
		},
		UpdateMask: &fieldmaskpb.FieldMask{
			Paths: []string{"description", "template.max_instance_request_concurrency"},
		},
	}
	operation, err := c.services.UpdateService(ctx, request)
	if err != nil {
		return err
	}
	now, err := operation.Wait(ctx)
	if err != nil {
		return err
	}
	err = errors.Join(
		expect(now.GetDescription(), ""),
		expect(now.GetTemplate().GetMaxInstanceRequestConcurrency(), int32(9)),
		expect(now.GetTemplate().GetContainers()[0].GetImage(), "hello"),
	)
	request.UpdateMask.Paths = []string{"nonsense"}
	_, wrong := c.services.UpdateService(ctx, request)
	return errors.Join(err, fails(wrong, codes.InvalidArgument, http.StatusBadRequest))
}

func lists(ctx context.Context, c clients) error {
	operation, err := c.services.CreateService(ctx, &runpb.CreateServiceRequest{
		Parent: parent, Service: wanted("hello:2"), ServiceId: "other",
	})
	if err != nil {
		return err
	}
	if _, err := operation.Wait(ctx); err != nil {
		return err
	}
	var names []string
	pages := c.services.ListServices(ctx, &runpb.ListServicesRequest{Parent: parent, PageSize: 1})
	for {
		service, err := pages.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			return err
		}
		names = append(names, service.GetName())
	}
	revision, err := c.revisions.ListRevisions(ctx, &runpb.ListRevisionsRequest{Parent: name}).Next()
	if err != nil {
		return err
	}
	if !strings.Contains(revision.GetContainers()[0].GetImage(), "@sha256:") {
		err = fmt.Errorf("no digest: %v", revision)
	}
	return errors.Join(err, expect(names, []string{name, parent + "/services/other"}))
}

func policy(ctx context.Context, c clients) error {
	binding := &iampb.Binding{Role: "roles/run.invoker", Members: []string{"allUsers"}}
	request := &iampb.SetIamPolicyRequest{
		Resource: name, Policy: &iampb.Policy{Bindings: []*iampb.Binding{binding}},
	}
	if _, err := c.services.SetIamPolicy(ctx, request); err != nil {
		return err
	}
	got, err := c.services.GetIamPolicy(ctx, &iampb.GetIamPolicyRequest{Resource: name})
	if err != nil {
		return err
	}
	request.Policy = got
	if _, err := c.services.SetIamPolicy(ctx, request); err != nil {
		return err
	}
	_, err = c.services.SetIamPolicy(ctx, request)
	return errors.Join(
		expect(got.GetBindings()[0].GetMembers(), binding.GetMembers()),
		fails(err, codes.Aborted, http.StatusConflict),
	)
}

func wrong(ctx context.Context, c clients) error {
	_, err := c.services.GetService(ctx, &runpb.GetServiceRequest{Name: parent + "/services/none"})
	missing := fails(err, codes.NotFound, http.StatusNotFound)
	service := wanted("hello")
	service.IapEnabled = true
	service.Template.HealthCheckDisabled = true
	_, err = c.services.CreateService(ctx, &runpb.CreateServiceRequest{
		Parent: parent, Service: service, ServiceId: "wrong",
	})
	var known *apierror.APIError
	if !errors.As(err, &known) || known.Details().BadRequest == nil {
		return fmt.Errorf("%v has no details", err)
	}
	var fields []string
	for _, violation := range known.Details().BadRequest.GetFieldViolations() {
		fields = append(fields, violation.GetField())
	}
	sort.Strings(fields)
	return errors.Join(missing, expect(fields, []string{"iap_enabled", "template.health_check_disabled"}))
}

func remove(ctx context.Context, c clients) error {
	operation, err := c.services.DeleteService(ctx, &runpb.DeleteServiceRequest{Name: name})
	if err != nil {
		return err
	}
	if _, err := operation.Wait(ctx); err != nil {
		return err
	}
	_, err = c.services.GetService(ctx, &runpb.GetServiceRequest{Name: name})
	return fails(err, codes.NotFound, http.StatusNotFound)
}

var stories = []struct {
	name string
	tell func(context.Context, clients) error
}{
	{"create", create}, {"get", get}, {"update", update}, {"lists", lists}, {"policy", policy},
	{"errors", wrong}, {"delete", remove},
}

func main() {
	passed, failed := 0, 0
	for _, transport := range []string{"grpc", "rest"} {
		ok, not, err := over(transport)
		passed, failed = passed+ok, failed+not
		if err != nil {
			fmt.Printf("FAIL go %s: %v\n", transport, err)
			failed++
		}
	}
	fmt.Printf("%d passed, %d failed, 0 skipped\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

// over tells the stories over one transport, to an API of their own.
func over(transport string) (passed, failed int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	address := free.Addr().String()
	free.Close()
	server := exec.Command(os.Args[1], address)
	out, err := server.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := server.Start(); err != nil {
		return 0, 0, err
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	// The token is printed once the port is open.
	token, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return 0, 0, err
	}
	c, err := connect(ctx, transport, address, strings.TrimSpace(token))
	if err != nil {
		return 0, 0, err
	}
	for _, story := range stories {
		if err := story.tell(ctx, c); err != nil {
			fmt.Printf("FAIL go %s %s: %v\n", transport, story.name, err)
			failed++
			continue
		}
		fmt.Printf("ok go %s %s\n", transport, story.name)
		passed++
	}
	return passed, failed, nil
}
