package interop;

import io.temporal.activity.Activity;
import io.temporal.activity.ActivityInterface;
import io.temporal.activity.ActivityOptions;
import io.temporal.common.RetryOptions;
import io.temporal.failure.ApplicationFailure;
import io.temporal.workflow.QueryMethod;
import io.temporal.workflow.SignalMethod;
import io.temporal.workflow.Workflow;
import io.temporal.workflow.WorkflowInterface;
import io.temporal.workflow.WorkflowMethod;
import java.time.Duration;

/** What the scenarios run. */
final class Workflows {
  private Workflows() {}

  @ActivityInterface
  public interface Greetings {
    String greetAtTheThirdAttempt(String name);
  }

  public static final class GreetingsImpl implements Greetings {
    @Override
    public String greetAtTheThirdAttempt(String name) {
      int attempt = Activity.getExecutionContext().getInfo().getAttempt();
      if (attempt < 3) {
        throw ApplicationFailure.newFailure("not yet", "Early");
      }
      return "Hello, " + name + "!";
    }
  }

  @WorkflowInterface
  public interface Greeter {
    @WorkflowMethod
    String greet(String name);
  }

  public static final class GreeterImpl implements Greeter {
    private final Greetings greetings =
        Workflow.newActivityStub(
            Greetings.class,
            ActivityOptions.newBuilder()
                .setStartToCloseTimeout(Duration.ofSeconds(10))
                .setRetryOptions(
                    RetryOptions.newBuilder().setInitialInterval(Duration.ofMillis(50)).build())
                .build());

    @Override
    public String greet(String name) {
      Workflow.sleep(Duration.ofMillis(50));
      return greetings.greetAtTheThirdAttempt(name);
    }
  }

  @WorkflowInterface
  public interface Parent {
    @WorkflowMethod
    String run(String name);
  }

  public static final class ParentImpl implements Parent {
    @Override
    public String run(String name) {
      return Workflow.newChildWorkflowStub(Greeter.class).greet(name);
    }
  }

  @WorkflowInterface
  public interface Persistent {
    @WorkflowMethod
    int succeedAtTheThirdAttempt();
  }

  public static final class PersistentImpl implements Persistent {
    @Override
    public int succeedAtTheThirdAttempt() {
      int attempt = Workflow.getInfo().getAttempt();
      if (attempt < 3) {
        throw ApplicationFailure.newFailure("attempt " + attempt, "Early");
      }
      return attempt;
    }
  }

  @WorkflowInterface
  public interface Basket {
    @WorkflowMethod
    int fill(int wanted, int carried);

    @SignalMethod
    void add(int count);

    @QueryMethod
    int count();
  }

  /** Waits for its items; continues as new once, with what it has. */
  public static final class BasketImpl implements Basket {
    private int count;

    @Override
    public int fill(int wanted, int carried) {
      count += carried;
      if (carried == 0) {
        Workflow.await(() -> count > 0);
        Workflow.newContinueAsNewStub(Basket.class).fill(wanted, count);
      }
      Workflow.await(() -> count >= wanted);
      return count;
    }

    @Override
    public void add(int added) {
      count += added;
    }

    @Override
    public int count() {
      return count;
    }
  }
}
