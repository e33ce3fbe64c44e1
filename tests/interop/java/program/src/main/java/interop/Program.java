package interop;

import io.temporal.client.WorkflowClient;
import io.temporal.client.WorkflowExecutionAlreadyStarted;
import io.temporal.client.WorkflowFailedException;
import io.temporal.client.WorkflowNotFoundException;
import io.temporal.client.WorkflowOptions;
import io.temporal.client.WorkflowServiceException;
import io.temporal.client.WorkflowStub;
import io.temporal.client.WorkflowTargetOptions;
import io.temporal.common.RetryOptions;
import io.temporal.failure.CanceledFailure;
import io.temporal.serviceclient.WorkflowServiceStubs;
import io.temporal.serviceclient.WorkflowServiceStubsOptions;
import io.temporal.worker.Worker;
import io.temporal.worker.WorkerFactory;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;

/** Does what users of a server do, and says of each thing how it went. */
public final class Program {
  private static final String TASK_QUEUE = "java-" + UUID.randomUUID();
  private static final int TOO_LARGE = 5 * 1024 * 1024;

  private final WorkflowClient client;

  private Program(WorkflowClient client) {
    this.client = client;
  }

  @FunctionalInterface
  private interface Scenario {
    void play() throws Exception;
  }

  private Map<String, Scenario> scenarios() {
    Map<String, Scenario> scenarios = new LinkedHashMap<>();
    scenarios.put("an activity is tried again until it succeeds", this::activity);
    scenarios.put("a child's result is its parent's", this::child);
    scenarios.put("the result of a retried workflow is its last run's", this::retriedWorkflow);
    scenarios.put("signals, queries and a chain of two runs", this::signalsAndQueries);
    scenarios.put("a chain is cancelled by the name of its first run", this::cancelledChain);
    scenarios.put("an id that is taken is refused", this::takenId);
    scenarios.put("a workflow that does not exist is not found", this::unknownWorkflow);
    scenarios.put("a start that is too large is refused at once", this::tooLarge);
    return scenarios;
  }

  private void activity() {
    expect("Hello, Ada!", stub(Workflows.Greeter.class).greet("Ada"));
  }

  private void child() {
    expect("Hello, Bob!", stub(Workflows.Parent.class).run("Bob"));
  }

  private void retriedWorkflow() {
    RetryOptions retry =
        RetryOptions.newBuilder()
            .setInitialInterval(Duration.ofMillis(50))
            .setMaximumAttempts(3)
            .build();
    WorkflowOptions options = options().setRetryOptions(retry).build();
    expect(
        3,
        client
            .newWorkflowStub(Workflows.Persistent.class, options)
            .succeedAtTheThirdAttempt());
  }

  private void signalsAndQueries() {
    Workflows.Basket basket = stub(Workflows.Basket.class);
    WorkflowClient.start(basket::fill, 3, 0);
    basket.add(1);
    String id = WorkflowStub.fromTyped(basket).getExecution().getWorkflowId();
    WorkflowStub latest = client.newUntypedWorkflowStub(id);
    latest.signal("add", 2);
    expect(3, WorkflowStub.fromTyped(basket).getResult(Integer.class));
    expect(3, latest.query("count", Integer.class));
  }

  private void cancelledChain() throws InterruptedException {
    Workflows.Basket basket = stub(Workflows.Basket.class);
    WorkflowClient.start(basket::fill, 3, 0);
    basket.add(1);
    WorkflowStub first = WorkflowStub.fromTyped(basket);
    String runId = first.getExecution().getRunId();
    WorkflowStub latest = client.newUntypedWorkflowStub(first.getExecution().getWorkflowId());
    while (latest.describe().getExecution().getRunId().equals(runId)) {
      Thread.sleep(20);
    }
    client
        .newUntypedWorkflowStub(
            WorkflowTargetOptions.newBuilder()
                .setWorkflowExecution(first.getExecution())
                .setFirstExecutionRunId(runId)
                .build())
        .cancel();
    WorkflowFailedException failed = fails(WorkflowFailedException.class, () -> first.getResult(Integer.class));
    expect(CanceledFailure.class, failed.getCause().getClass());
  }

  private void takenId() {
    WorkflowOptions options = options().build();
    Workflows.Basket basket = client.newWorkflowStub(Workflows.Basket.class, options);
    WorkflowClient.start(basket::fill, 1, 0);
    Workflows.Basket again = client.newWorkflowStub(Workflows.Basket.class, options);
    fails(
        WorkflowExecutionAlreadyStarted.class, () -> WorkflowClient.start(again::fill, 1, 0));
    basket.add(1);
    expect(1, WorkflowStub.fromTyped(basket).getResult(Integer.class));
  }

  private void unknownWorkflow() {
    fails(
        WorkflowNotFoundException.class,
        () -> client.newUntypedWorkflowStub("no such id").signal("add", 1));
  }

  private void tooLarge() {
    Workflows.Greeter greeter = stub(Workflows.Greeter.class);
    String name = "x".repeat(TOO_LARGE);
    WorkflowServiceException failed =
        fails(
            WorkflowServiceException.class, () -> WorkflowClient.start(greeter::greet, name));
    expect("GrpcMessageTooLargeException", failed.getCause().getClass().getSimpleName());
  }

  private <T> T stub(Class<T> workflow) {
    return client.newWorkflowStub(workflow, options().build());
  }

  private static WorkflowOptions.Builder options() {
    return WorkflowOptions.newBuilder()
        .setWorkflowId(UUID.randomUUID().toString())
        .setTaskQueue(TASK_QUEUE);
  }

  private static void expect(Object wanted, Object found) {
    if (!Objects.equals(wanted, found)) {
      throw new AssertionError("expected " + wanted + ", found " + found);
    }
  }

  private static <T extends Throwable> T fails(Class<T> kind, Scenario action) {
    try {
      action.play();
    } catch (Throwable failure) {
      if (kind.isInstance(failure)) {
        return kind.cast(failure);
      }
      throw new AssertionError("it failed with " + failure, failure);
    }
    throw new AssertionError("it did not fail");
  }

  public static void main(String[] arguments) {
    WorkflowServiceStubs service =
        WorkflowServiceStubs.newServiceStubs(
            WorkflowServiceStubsOptions.newBuilder().setTarget(arguments[0]).build());
    WorkflowClient client = WorkflowClient.newInstance(service);
    WorkerFactory factory = WorkerFactory.newInstance(client);
    Worker worker = factory.newWorker(TASK_QUEUE);
    worker.registerWorkflowImplementationTypes(
        Workflows.GreeterImpl.class,
        Workflows.ParentImpl.class,
        Workflows.PersistentImpl.class,
        Workflows.BasketImpl.class);
    worker.registerActivitiesImplementations(new Workflows.GreetingsImpl());
    factory.start();
    new Program(client)
        .scenarios()
        .forEach(
            (name, scenario) -> {
              try {
                scenario.play();
                System.out.println("ok " + name);
              } catch (Throwable failure) {
                System.out.println("failed " + name + ": " + failure);
              }
            });
    factory.shutdownNow();
    service.shutdownNow();
    System.exit(0);
  }
}
